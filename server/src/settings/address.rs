//! Addresses to listen at, as an operator writes them.

use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};

/// Reads `127.0.0.1:8080`, or resolves the name in `localhost:8080` to its first address.
pub(super) fn socket_address(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    let malformed = || format!("{text:?} is no address such as 127.0.0.1:8080 or localhost:8080");
    let (name, port) = text.rsplit_once(':').ok_or_else(malformed)?;
    let port: u16 = port.parse().map_err(|_| malformed())?;
    if name.is_empty() || name.contains(['/', ':', '[', ']']) {
        return Err(malformed());
    }
    let unknown = |why: String| format!("this machine finds no address of the name {name:?}{why}");
    match (name, port).to_socket_addrs() {
        Ok(mut found) => found.next().ok_or_else(|| unknown(String::new())),
        // A machine without a hosts file, as in an empty container, has it too (RFC 6761).
        Err(_) if name == "localhost" => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        Err(error) => Err(unknown(format!(": {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_its_first_address() {
        assert_eq!(socket_address("0.0.0.0:1"), Ok(SocketAddr::from(([0, 0, 0, 0], 1))));
        assert_eq!(socket_address("[::1]:0").unwrap().port(), 0);
        let named = socket_address("localhost:8080").unwrap();
        assert!(named.ip().is_loopback() && named.port() == 8080, "{named}");
    }

    #[test]
    fn a_text_without_an_address_is_refused_in_words() {
        for text in
            ["8080", "localhost", ":8080", "http://localhost:8080", "[::1:80", "localhost:99999"]
        {
            let said = socket_address(text).unwrap_err();
            assert!(said.contains("no address such as"), "{said}");
        }
        let said = socket_address("no-such-name.invalid:1").unwrap_err();
        assert!(said.contains("the name \"no-such-name.invalid\""), "{said}");
    }
}

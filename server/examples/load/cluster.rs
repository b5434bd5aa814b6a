//! Three NATS nodes on this machine, and the settings of the servers whose log they replicate.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::Outcome;

/// The number of servers, and of nodes.
pub(crate) const SERVERS: usize = 3;
/// The variable with the path of nats-server.
pub(crate) const PROGRAM: &str = "KEYPOOL_NATS_SERVER";

/// Returns the path of nats-server, or `None` if the variable names no file.
pub(crate) fn program() -> Option<PathBuf> {
    env::var_os(PROGRAM).map(PathBuf::from).filter(|path| path.is_file())
}

/// The commands that start nodes with their files in a directory, and the settings of the servers.
pub(crate) fn nodes(dir: &Path) -> Outcome<(Vec<Command>, Vec<String>)> {
    let listeners: Vec<_> =
        (0..2 * SERVERS).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let addresses: Vec<String> = listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.to_string()))
        .collect::<Result<_, _>>()?;
    drop(listeners);
    let (clients, routes) = addresses.split_at(SERVERS);
    let urls = |scheme: &str, addresses: &[String]| {
        let url = |address: &String| format!("{scheme}://{address}");
        addresses.iter().map(url).collect::<Vec<_>>().join(",")
    };
    let peers = urls("nats-route", routes);
    let mut commands = Vec::new();
    for (number, (client, route)) in clients.iter().zip(routes).enumerate() {
        let (store, config) =
            (dir.join(format!("nats-{number}")), dir.join(format!("{number}.conf")));
        let text = format!(
            "server_name: n{number}\nlisten: \"{client}\"\nmax_payload: 8MB\n\
             jetstream {{ store_dir: \"{}\", sync_interval: always }}\n\
             cluster {{ name: load, listen: \"{route}\", routes: [{peers}] }}\n",
            store.display()
        );
        fs::write(&config, text)?;
        let mut command = Command::new(program().ok_or("there is no nats-server")?);
        command.arg("-c").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
        commands.push(command);
    }
    let settings = ["--cluster".to_owned(), urls("nats", clients)];
    Ok((commands, settings.into()))
}

//! The tests of the bindings, in one binary.

#[cfg(test)]
mod bindings {
    mod device;
    mod player;
    mod python;
    mod rust_player;
    mod scenario;
    mod service;
    mod typescript;
}

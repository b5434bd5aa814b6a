//! Generates the modules of the other languages from the built library: see `client/bindings/generate`.

fn main() {
    uniffi::uniffi_bindgen_main();
}

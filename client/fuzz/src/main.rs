//! Runs a target: under libFuzzer where cargo-fuzz builds it, and otherwise on the files that are named.

#![cfg_attr(fuzzing, no_main)]
#![cfg_attr(
    fuzzing,
    allow(unsafe_code, reason = "the macro of libFuzzer declares the C function that it calls")
)]

/// Runs the target that the variable `KEYPOOL_FUZZ_TARGET` names.
#[cfg(fuzzing)]
fn run(bytes: &[u8]) {
    use std::sync::LazyLock;
    static TARGET: LazyLock<keypool_fuzz::FuzzTarget> = LazyLock::new(|| {
        let name = std::env::var("KEYPOOL_FUZZ_TARGET").unwrap_or_default();
        keypool_fuzz::find_target(&name).unwrap_or(keypool_fuzz::TARGETS[0])
    });
    (TARGET.run)(bytes);
}

#[cfg(fuzzing)]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| run(bytes));

/// `keypool-fuzz TARGET FILE...` runs a target on files; without arguments it names the targets, each with the length
/// of its longest input.
#[cfg(not(fuzzing))]
#[expect(clippy::print_stdout, reason = "the output of a program")]
fn main() -> std::io::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let Some(target) = arguments.next() else {
        for target in keypool_fuzz::TARGETS {
            println!("{} {}", target.name, target.bytes_max);
        }
        return Ok(());
    };
    let target = keypool_fuzz::find_target(&target)
        .ok_or_else(|| std::io::Error::other(format!("there is no target {target}")))?;
    for file in arguments {
        println!("{} {file}", target.name);
        (target.run)(&std::fs::read(&file)?);
    }
    Ok(())
}

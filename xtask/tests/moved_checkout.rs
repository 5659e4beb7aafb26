//! A checkout that was moved together with its `target/` is built where it is, not where it was.
//!
//! The checkout is a small one: its package `xtask` only hands over to the real program, so that cargo starts the real
//! program as it does in a real checkout, and finds nothing to compile again after the move.

use std::{
    env, fs,
    path::Path,
    process::{Command, Output},
};

const FILES: [(&str, &str); 5] = [
    (
        "Cargo.toml",
        "[workspace]\nresolver = \"3\"\nmembers = [\"xtask\", \"planted\"]\n\
         [profile.suite]\ninherits = \"dev\"\n",
    ),
    (
        "xtask/Cargo.toml",
        "[package]\nname = \"xtask\"\nedition = \"2024\"\n",
    ),
    (
        "xtask/src/main.rs",
        r#"use std::{env, os::unix::process::CommandExt, process::Command};
fn main() {
    let program = env::var_os("REAL_XTASK").expect("the test names the real program");
    panic!("{}", Command::new(program).args(env::args_os().skip(1)).exec());
}
"#,
    ),
    (
        "planted/Cargo.toml",
        "[package]\nname = \"planted\"\nedition = \"2024\"\n",
    ),
    (
        "planted/src/lib.rs",
        r#"#[test]
fn planted() {
    let here = std::env::var("CARGO_MANIFEST_DIR").unwrap();
    std::fs::write(std::path::Path::new(&here).join("ran"), "").unwrap();
}
"#,
    ),
];

/// What a developer types, in `checkout`.
fn test_l0(checkout: &Path) -> Output {
    let cargo = env::var_os("CARGO").expect("cargo runs this test");
    Command::new(cargo)
        .args(["run", "--quiet", "--offline", "--package", "xtask", "--"])
        .args(["test", "--level", "l0", "planted"])
        .current_dir(checkout)
        .env("REAL_XTASK", env!("CARGO_BIN_EXE_xtask"))
        .env_remove("CARGO_TARGET_DIR")
        .env_remove("CARGO_MANIFEST_DIR")
        .output()
        .unwrap()
}

#[track_caller]
fn assert_built_in(checkout: &Path) {
    let output = test_l0(checkout);
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stdout}\n{stderr}");
    let mark = checkout.join("planted/ran");
    assert!(
        mark.is_file(),
        "no test ran in {}:\n{stdout}\n{stderr}",
        checkout.display()
    );
    fs::remove_file(mark).unwrap();
}

#[test]
fn a_checkout_that_moved_with_its_target_directory_builds_in_the_new_place() {
    let directory = tempfile::tempdir().unwrap();
    let first = directory.path().join("first");
    for (path, text) in FILES {
        let path = first.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    assert_built_in(&first);

    let second = directory.path().join("second");
    fs::rename(&first, &second).unwrap();
    assert_built_in(&second);
    assert!(!first.exists(), "something was built in the old place");
}

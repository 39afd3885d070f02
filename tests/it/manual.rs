//! `echo-reactor man` and `echo-reactor completions`: the files of an installation.

use crate::support::{Dir, ended, program};
use std::fs;
use std::process::{Command, Stdio};

const COMMANDS: [&str; 11] = [
    "trace",
    "watch",
    "serve",
    "send",
    "doctor",
    "bench",
    "check",
    "compare",
    "diff",
    "man",
    "completions",
];

#[test]
fn there_is_a_man_page_for_each_command() {
    let dir = Dir::new();
    let pages = dir.path("man/man1");
    assert_eq!(ended(program().arg("man").arg(&pages)).code, 0);
    let mut names: Vec<String> = fs::read_dir(&pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut expected: Vec<String> = COMMANDS.map(|name| format!("echo-reactor-{name}.1")).into();
    expected.push("echo-reactor.1".to_owned());
    expected.sort();
    assert_eq!(names, expected, "no hidden command is among them");
    let page = fs::read_to_string(pages.join("echo-reactor-serve.1")).unwrap();
    assert!(page.contains(".TH echo-reactor-serve 1"), "{page}");
    assert!(page.contains("\\-\\-max\\-connections"), "{page}");
}

#[test]
fn a_folder_that_cannot_be_made_is_an_error() {
    let dir = Dir::new();
    let file = dir.path("file");
    fs::write(&file, "").unwrap();
    let path = file.join("man1");
    ended(program().arg("man").arg(path)).failed(73, &["man pages", "file/man1"]);
}

/// The script is read by the shell itself, where it is installed.
#[test]
fn a_shell_completes_the_command_line() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = ended(program().args(["completions", shell]));
        assert_eq!(script.code, 0, "{script:?}");
        for command in COMMANDS {
            assert!(script.out.contains(command), "{shell}: {command}");
        }
        assert!(script.out.contains("max-connections"), "{shell}");
        for hidden in ["resolve-names", "as-guard", "worker "] {
            assert!(!script.out.contains(hidden), "{shell}: {hidden}");
        }
    }
    ended(program().args(["completions", "cmd"])).failed(64, &["'cmd'", "bash"]);
    if !crate::support::has_tool("bash") {
        return;
    }
    let script = ended(program().args(["completions", "bash"])).out;
    let ask = format!(
        "{script}\nCOMP_WORDS=(echo-reactor ser); COMP_CWORD=1; _echo__reactor echo-reactor ser echo-reactor; \
         echo \"${{COMPREPLY[@]}}\""
    );
    let mut bash = Command::new("bash");
    bash.args(["--norc", "-c", &ask])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    assert_eq!(ended(&mut bash).out.trim(), "serve");
}

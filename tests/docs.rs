//! What the README shows is run, and what it names is there.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// The fenced blocks of a page in that language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    page.split(&fence).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// One space between words; the sizes of components, which change with every build, as a word.
fn comparable(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let is_size = |at: usize| words.get(at + 1).is_some_and(|unit| ["KiB", "MiB"].contains(unit));
    let sized = (0..words.len()).map(|at| if is_size(at) { "[size]" } else { words[at] });
    sized.collect::<Vec<_>>().join(" ")
}

/// Every command of the README's consoles, in its order and in one folder, says what the page says.
#[test]
fn the_readmes_consoles_are_true() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let yaml = blocks(&readme, "yaml").remove(0);
    fs::write(folder.path().join("tidegate.yaml"), yaml).unwrap();
    assert!(root().join("target/guests/csv.wasm").exists(), "the plugins are not built: run `make setup`");
    fs::create_dir(folder.path().join("target")).unwrap();
    std::os::unix::fs::symlink(root().join("target/guests"), folder.path().join("target/guests")).unwrap();
    let binary = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut commands = 0;
    for console in blocks(&readme, "console") {
        for example in console.split("$ ").skip(1) {
            let (command, told) = example.split_once('\n').unwrap();
            let output = Command::new("sh")
                .args(["-c", &format!("{{ {command}; }} 2>&1")])
                .current_dir(folder.path())
                .env("PATH", &path)
                .output()
                .unwrap();
            let output = String::from_utf8(output.stdout).unwrap();
            assert_eq!(comparable(&output), comparable(told), "{command} says:\n{output}");
            commands += 1;
        }
    }
    assert!(commands >= 3, "the consoles were not found");
}

/// Every `make` target that a page names is one.
#[test]
fn every_make_target_is_there() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    for page in ["README.md", "docs/architecture.md"] {
        let text = fs::read_to_string(root().join(page)).unwrap();
        for part in text.split("make ").skip(1) {
            let target: String = part.chars().take_while(|c| c.is_ascii_lowercase() || *c == '-').collect();
            let named = text.contains(&format!("`make {target}`")) || text.contains(&format!("\nmake {target}"));
            assert!(!named || makefile.contains(&format!("\n{target}:")), "{page}: `make {target}`");
        }
    }
}

/// Every link to a file leads to one.
#[test]
fn every_link_to_a_file_leads_there() {
    for page in ["README.md", "docs/architecture.md", "wit/VERSIONING.md", "CHANGELOG.md"] {
        let page = root().join(page);
        let text = fs::read_to_string(&page).unwrap();
        for part in text.split("](").skip(1) {
            let link = part.split(')').next().unwrap();
            if !link.contains("://") {
                assert!(page.parent().unwrap().join(link).exists(), "{}: {link}", page.display());
            }
        }
    }
}

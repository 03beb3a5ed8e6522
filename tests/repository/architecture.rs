//! The rooms and their import rule: imports only point down the list of the design.

use std::fs;
use std::path::{Path, PathBuf};

/// The rooms, from the top down. `cli` stands above `operator` only for the operator's settings.
const ROOMS: [&str; 9] = ["cli", "operator", "gate", "config", "api", "engine", "migrations", "keyspace", "model"];

/// What a room may import below it, where that is less than everything.
const ONLY: [(&str, &[&str]); 4] = [
    ("gate", &["engine", "migrations", "keyspace", "model"]),
    ("migrations", &["model"]),
    ("api", &["migrations", "model"]),
    ("config", &["engine", "migrations", "keyspace", "model"]),
];

/// Crates that only one place may name.
const CRATES: [(&str, &[&str]); 3] =
    [("redis", &["keyspace"]), ("kube", &["api", "operator"]), ("k8s_openapi", &["api", "operator"])];

/// What the pure room may not know.
const NOT_IN_MODEL: [&str; 5] = ["tokio", "redis", "kube", "k8s_openapi", "tracing"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

struct Import {
    file: String,
    room: String,
    path: String,
}

/// Every path that a file names: `use` lines and paths in expressions.
fn imports() -> Vec<Import> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut imports = Vec::new();
    for path in sources(&src) {
        let file = path.strip_prefix(&src).expect("below src").display().to_string();
        let room = file.split(['/', '.']).next().expect("a room").to_owned();
        let text = fs::read_to_string(&path).expect("text");
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with("//")) {
            let hides = line.starts_with("use crate::{") || line.contains("super::super::super");
            assert!(!hides, "{file}: write one `use crate::ROOM::…` a room, so that the rule can be read: {line}");
            for word in line.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')) {
                if word.contains("::") {
                    imports.push(Import { file: file.clone(), room: room.clone(), path: word.to_owned() });
                }
            }
        }
    }
    imports
}

#[test]
fn imports_point_down() {
    let place = |room: &str| ROOMS.iter().position(|name| *name == room);
    for Import { file, room, path } in imports() {
        let Some(target) = path.strip_prefix("crate::").and_then(|rest| rest.split("::").next()) else { continue };
        let (Some(from), Some(to)) = (place(&room), place(target)) else {
            assert!(!ROOMS.contains(&room.as_str()), "{file}: {path} is no room of the design");
            continue;
        };
        assert!(from <= to, "{file} imports upwards: {path}");
        for (limited, allowed) in ONLY {
            let fits = room != limited || target == limited || allowed.contains(&target);
            assert!(fits, "{file}: {limited} may import {allowed:?} only, not {path}");
        }
    }
}

#[test]
fn crates_stay_in_their_rooms() {
    for Import { file, room, path } in imports() {
        let first = path.split("::").next().unwrap_or_default();
        for (name, rooms) in CRATES {
            assert!(first != name || rooms.contains(&room.as_str()), "{file} may not name {name}: {path}");
        }
        assert!(room != "model" || !NOT_IN_MODEL.contains(&first), "{file}: the model is pure, but names {path}");
    }
}

#[test]
fn every_room_is_known() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for path in sources(&src) {
        let file = path.strip_prefix(&src).expect("below src").display().to_string();
        let room = file.split(['/', '.']).next().expect("a room").to_owned();
        assert!(ROOMS.contains(&room.as_str()) || ["main", "lib"].contains(&room.as_str()), "{file}");
        let text = fs::read_to_string(&path).expect("text");
        assert!(text.starts_with("//!"), "{file} does not say what it owns");
    }
}

#[test]
fn the_clock_is_read_where_it_may_be() {
    for Import { file, room, path } in imports() {
        let reads = ["Timestamp::now", "SystemTime::now", "Instant::now"].iter().any(|call| path.contains(call));
        assert!(!reads || ["operator", "engine", "keyspace", "cli"].contains(&room.as_str()), "{file}: {path}");
    }
}

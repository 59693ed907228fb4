//! Lists the files of the page (`gateway/page/`) and of the operator's page (its folder `operator`) so that the binary carries them.

use std::{env, fmt::Write, fs, path::Path};

fn main() {
    let folder = Path::new(&env::var("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("page");
    let mut names = names_in(&folder, "");
    names.extend(names_in(&folder, "operator/"));
    names.sort_unstable();
    let mut table = String::from("&[\n");
    for name in names {
        let path = folder.join(&name);
        // Not the folder: cargo would look through the tests' node_modules every time. A new file is named by one that changed.
        println!("cargo::rerun-if-changed=page/{name}");
        let (_, content_type) =
            CONTENT_TYPES.iter().find(|(ending, _)| name.ends_with(ending)).expect("filtered above");
        writeln!(table, "    ({name:?}, {content_type:?}, include_bytes!({path:?})),").expect("a string takes all");
    }
    table.push_str("]\n");
    let out = Path::new(&env::var("OUT_DIR").expect("cargo sets it")).join("page.rs");
    fs::write(out, table).expect("OUT_DIR is writable");
}

/// The names of the files in a folder below, which is "" or ends with a slash.
fn names_in(folder: &Path, below: &str) -> Vec<String> {
    fs::read_dir(folder.join(below))
        .expect("the page's folders are there")
        .map(|entry| entry.expect("the page's folders are readable"))
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| CONTENT_TYPES.iter().any(|(ending, _)| name.ends_with(ending)))
        .map(|name| format!("{below}{name}"))
        .collect()
}

const CONTENT_TYPES: &[(&str, &str)] = &[
    (".html", "text/html; charset=utf-8"),
    (".js", "text/javascript; charset=utf-8"),
    (".css", "text/css; charset=utf-8"),
    (".svg", "image/svg+xml"),
    (".png", "image/png"),
    (".ico", "image/x-icon"),
    (".webmanifest", "application/manifest+json"),
    (".woff2", "font/woff2"),
];

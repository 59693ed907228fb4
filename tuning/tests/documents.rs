//! Holds docs/tuning.md to the profiles that come with the crate.

use std::{fs, path::Path};

use antiphon_tuning::{
    profile::{BUILT_IN, Of, Profile, Severity, Tuner, Want},
    value::Value,
};

const BEGIN: &str =
    "<!-- Profiles: begin. Made from tuning/profiles; `cargo test -p antiphon-tuning --test documents` compares. -->\n";
const END: &str = "<!-- Profiles: end. -->";

fn cell(tuner: &Tuner) -> String {
    let words: Vec<String> = tuner.values.iter().map(Value::to_string).collect();
    let mut text = match tuner.want {
        Want::Note => "shown".to_owned(),
        Want::AtLeast => format!("≥ {}", words.join(" ")),
        Want::AtMost => format!("≤ {}", words.join(" ")),
        Want::Exactly => words.join(" "),
        Want::OneOf => words.join(" or "),
    };
    if !tuner.per_thousand_connections.is_empty() {
        let more: Vec<String> = tuner.per_thousand_connections.iter().map(u64::to_string).collect();
        let whose = if tuner.of == Of::Shard { "of a shard" } else { "" };
        let fixed = text.strip_suffix(" 0").map_or_else(|| format!("{text} +"), str::to_owned);
        text = format!("{fixed} {} per 1000 connections {whose}", more.join(" ")).trim_end().to_owned();
    }
    if tuner.severity == Severity::Required {
        text = format!("**{text}**");
    }
    text
}

/// One table a profile; of one that extends another, what differs.
fn tables() -> String {
    let mut text = String::new();
    let base = Profile::built_in("chat-500k").unwrap();
    for (name, source) in BUILT_IN {
        let profile = Profile::built_in(name).unwrap();
        let extends = source.contains("\nextends = \"chat-500k\"\n");
        let after = if extends { " It extends `chat-500k`; this is what differs." } else { "" };
        text.push_str(&format!(
            "\n### {name}\n\n{}, {} connections.{after}\n\n",
            profile.description, profile.connections
        ));
        text.push_str("| tuner | wanted | why | from |\n|---|---|---|---|\n");
        for tuner in profile.tuners.iter().filter(|tuner| !(extends && base.tuners.contains(tuner))) {
            let (name, reason, source) = (tuner.setting.name, &tuner.reason, &tuner.source);
            text.push_str(&format!("| `{name}` | {} | {reason} | {source} |\n", cell(tuner)));
        }
    }
    text.push('\n');
    text
}

#[test]
fn the_tables_are_those_of_the_profiles() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("docs/tuning.md");
    let document = fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).expect("the tables' beginning");
    let (now, after) = rest.split_once(END).expect("the tables' end");
    if std::env::var_os("ANTIPHON_WRITE_DOCUMENTS").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{}{END}{after}", tables())).unwrap();
        return;
    }
    assert!(now == tables(), "set ANTIPHON_WRITE_DOCUMENTS=1 to write docs/tuning.md anew");
}

//! Shows a configuration: `config print`, its help, and docs/configuration.md.

use std::fmt::Write;

use super::{Form, KEYS, Origin, Value, Values};

impl Values {
    /// The effective configuration as TOML, each value with its origin beside it. Secrets are hidden.
    #[must_use]
    pub fn print(&self) -> String {
        let mut lines: Vec<(String, Option<String>)> = Vec::new();
        let mut table = "";
        for (key, value, origin) in self.iter() {
            let (key_table, name) = key.name.split_once('.').unwrap_or_default();
            if key_table != table {
                if !table.is_empty() {
                    lines.push((String::new(), None));
                }
                lines.push((format!("[{key_table}]"), None));
                table = key_table;
            }
            let text = match value {
                Value::Unset => format!("# {name} is not set"),
                Value::Integer(number) => format!("{name} = {number}"),
                Value::Boolean(value) => format!("{name} = {value}"),
                Value::Text(_) if key.form == Form::Secret => format!("{name} = \"(hidden)\""),
                Value::Text(text) => format!("{name} = {}", quoted(text)),
                Value::List(items) => {
                    format!("{name} = [{}]", items.iter().map(|item| quoted(item)).collect::<Vec<_>>().join(", "))
                }
            };
            let unset = *value == Value::Unset && *origin == Origin::Default;
            lines.push((text, (!unset).then(|| origin.to_string())));
        }
        let width = lines.iter().filter(|line| line.1.is_some()).map(|line| line.0.chars().count()).max().unwrap_or(0);
        lines.into_iter().fold(String::new(), |mut all, (text, origin)| {
            let _ = match origin {
                Some(origin) => writeln!(all, "{text:width$}  # {origin}"),
                None => writeln!(all, "{text}"),
            };
            all
        })
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// Every key with its help and default, for `config print --help`.
#[must_use]
pub fn help_text() -> String {
    let mut text = String::from(
        "Keys (file: [table] and name; environment: ANTIPHON_TABLE_NAME; flag: --set table.name=value):\n",
    );
    for key in KEYS {
        let flag = key.flag.map_or_else(String::new, |flag| format!(", also {flag}"));
        let _ = writeln!(text, "  {}{flag}\n      {} Default: {}.", key.name, key.help, key.default_text());
    }
    text
}

const INTRODUCTION: &str = "# Configuration

<!-- Written by `antiphon config reference`; a test compares. -->

`antiphon serve --config FILE` reads a TOML file; the environment stands above the file, flags above the environment. All problems
are listed at once, with file and line. `antiphon config print` takes the same flags and shows each value with its origin.

- A key `table.name` is `name` under `[table]` in the file, `ANTIPHON_TABLE_NAME` in the environment, and
  `--set table.name=value` as a flag; some have a flag of their own.
- Sizes are whole numbers of bytes, times whole milliseconds; the unit ends the name. Where it says `size`, a unit may stand behind
  the number: `KiB`, `MiB`, `GiB`, `TiB`, `KB`, `MB`, `GB`, `TB`.
- Lists are `[\"a\", \"b\"]` in the file, `a,b` elsewhere.
- A path in the file is relative to the file's folder, elsewhere to the working directory.
- An unknown key is refused. An unknown `ANTIPHON_…` variable is only warned of, since orchestrators make such names themselves.
- `--dev` needs no keys under `[auth]`: the node signs tokens itself, and listens on loopback only.

A small production file:

```toml
[node]
data = \"/var/lib/antiphon\"
listen = \"0.0.0.0:8080\"

[auth]
audience = \"chat\"
jwks_file = \"jwks.json\"

[browsers]
origins_allowed = [\"https://chat.example.com\"]
```
";

/// The text of docs/configuration.md.
#[must_use]
pub fn reference_markdown() -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut table = "";
    for key in KEYS {
        let (key_table, name) = key.name.split_once('.').unwrap_or_default();
        if key_table != table {
            let _ = writeln!(text, "\n## {key_table}\n\n| key | value | default | |\n|---|---|---|---|");
            table = key_table;
        }
        let form = match key.form {
            Form::Integer { min, max } => format!("{min} to {max}"),
            Form::Size { .. } => "size".to_owned(),
            Form::Boolean => "true or false".to_owned(),
            Form::Text => "text".to_owned(),
            Form::Secret => "text, never shown".to_owned(),
            Form::Path => "path".to_owned(),
            Form::Address => "IP:PORT".to_owned(),
            Form::List => "list".to_owned(),
            Form::Paths => "list of paths".to_owned(),
        };
        let flag = key.flag.map_or_else(String::new, |flag| format!(" Flag: `{flag}`."));
        let _ = writeln!(text, "| `{name}` | {form} | {} | {}{flag} |", key.default_text(), key.help);
    }
    text
}

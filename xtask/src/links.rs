//! Checks that relative links in the repository's documents lead somewhere.

use std::{fs, path::Path};

use anyhow::bail;

use crate::process::{output, program, root};

pub(crate) fn check() -> anyhow::Result<()> {
    let names = output(program("git").args(["ls-files", "--cached", "--others", "--exclude-standard", "*.md"]))?;
    let mut broken = Vec::new();
    let mut count = 0;
    for name in names.lines() {
        let path = root().join(name);
        // A file that was deleted but not yet committed.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        for (line, target) in relative_links(&text) {
            count += 1;
            let folder = path.parent().unwrap_or(Path::new("/"));
            if !folder.join(target).exists() {
                broken.push(format!("{name}:{line}: {target} is not there"));
            }
        }
    }
    if broken.is_empty() {
        println!("{count} links lead somewhere");
        Ok(())
    } else {
        bail!("{} broken links:\n{}", broken.len(), broken.join("\n"))
    }
}

/// Line and target, without its anchor, of every link that is no URL and no anchor alone. Code fences are passed over.
fn relative_links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for rest in line.split("](").skip(1) {
            let target = rest.split([')', ' ']).next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
                links.push((index + 1, target));
            }
        }
    }
    links
}

#[cfg(test)]
mod tests {
    #[test]
    fn relative_links_are_found() {
        let text =
            "[a](x.md) and [b](https://e.example) ![c](i/p.png \"t\")\n```\n[d](no)\n```\n[e](#here) [f](y.md#z)";
        assert_eq!(super::relative_links(text), [(1, "x.md"), (1, "i/p.png"), (5, "y.md")]);
    }
}

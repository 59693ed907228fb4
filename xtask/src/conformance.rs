//! `cargo xtask conformance`: clients held to what the protocol asks of them.

use anyhow::bail;

use crate::{
    process::{Server, cargo, free_port, program, program_within, root, run as run_program},
    test::{antiphon, empty_folder, rust_examples},
};

/// Whatever client the arguments name; our own, on a node of their own, where they name no node.
pub(crate) fn run(arguments: &[String]) -> anyhow::Result<()> {
    let has = |part: &str| arguments.iter().any(|one| one.starts_with(part));
    if has("ws://") || has("wss://") || has("--list") || has("--help") {
        return run_program(
            cargo(["run", "--quiet", "--locked", "--package", "antiphon-conformance", "--"]).args(arguments),
        );
    }
    let typescript = root().join("clients/typescript");
    if !typescript.join("dist/index.js").is_file() {
        bail!("the TypeScript client is not built: (cd clients/typescript && npm ci && npm run build)");
    }
    run_program(&mut cargo(["build", "--locked", "--package", "antiphon-conformance"]))?;
    let (antiphon, examples) = (antiphon()?, rust_examples()?);
    let data = empty_folder("conformance")?;
    let (listen, console) = (format!("127.0.0.1:{}", free_port()?), format!("127.0.0.1:{}", free_port()?));
    let mut serve = program(&antiphon);
    serve.args(["serve", "--dev", "--listen", &listen, "--console", &console, "--data"]).arg(&data);
    let _server = Server::start(&mut serve)?;
    let token_command = format!("{} token --user {{user}} --data {}", antiphon.display(), data.display());
    let suite = examples.with_file_name("antiphon-conformance");
    for client in [
        format!("node {}", typescript.join("tests/adapter.mjs").display()),
        examples.join("adapter").display().to_string(),
    ] {
        let mut command = program_within(600, &suite);
        command.args([&format!("ws://{listen}/ws"), "--token-command", &token_command, "--client", &client]);
        run_program(command.args(arguments))?;
    }
    Ok(())
}

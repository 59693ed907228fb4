//! The `antiphon` command line: reads arguments, environment and file into a configuration and hands it to the node.
//!
//! Exit codes: 0 done, 1 failed, 2 the arguments or the configuration are wrong, 130 ended by a third signal before it was done.

use std::{
    fs,
    io::{self, IsTerminal},
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    thread::available_parallelism,
};

use antiphon_gateway::{
    config::{self, CertificateFiles, Config, SHARDS_MAX, Sources, Values},
    echo::EchoMode,
    node,
    outside::{
        backend::keys::{Key, Scope, new_secret},
        new_dev_token,
    },
    store::{self, StoreArguments},
    store_folder::dev_key,
    tls::make_certificate,
};
use antiphon_wire::ids::{DeviceId, UserId};
use anyhow::Context;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

/// Small, frequent, short-lived buffers on many threads: see docs/dependencies.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A real-time chat backend. Without a command it starts a node for development on loopback.
#[derive(Debug, Parser)]
#[command(name = "antiphon", version)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a node.
    Serve(ConfigArguments),
    /// Runs a plain WebSocket echo on the node's net ring and codec, for conformance tests and benchmarks.
    Echo {
        /// Where to listen; port 0 takes a free one.
        #[arg(long)]
        listen: SocketAddr,
        /// Threads.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=SHARDS_MAX))]
        shards: u64,
        /// Accepts permessage-deflate, and compresses whatever gets shorter by it.
        #[arg(long)]
        deflate: bool,
        /// Sends every message to all other connections of the same thread instead.
        #[arg(long, conflicts_with = "deflate")]
        broadcast: bool,
        /// Speaks TLS with this PEM chain of certificates.
        #[arg(long, value_name = "FILE", requires = "tls_key")]
        tls_certificate: Option<PathBuf>,
        /// The certificate's PEM key.
        #[arg(long, value_name = "FILE", requires = "tls_certificate")]
        tls_key: Option<PathBuf>,
    },
    /// Makes a certificate for development, signed by itself, and its key.
    Certificate {
        /// Where to write certificate.pem and key.pem.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Names and addresses that it is for.
        #[arg(default_values = ["localhost", "127.0.0.1", "::1"])]
        names: Vec<String>,
    },
    /// Shows the configuration.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Prints a development token, signed with the data folder's key.
    Token {
        /// Whose.
        #[arg(long)]
        user: UserId,
        /// Of which device; without it the client chooses.
        #[arg(long)]
        device: Option<DeviceId>,
        /// The development node's data folder.
        #[arg(long)]
        data: Option<String>,
    },
    /// Makes a key for the HTTP API, or for the operator's page: its entry for the keys file on standard output, its secret on standard error.
    ApiKey {
        /// What logs call it.
        name: String,
        /// What it may be used for: tokens, read, write, groups, devices; operate for the operator's page. To be repeated.
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<Scope>,
    },
    /// Looks at a data folder, checks it, writes it out as text, makes one from that: docs/store.md.
    Store(StoreArguments),
    /// Prints the version.
    Version,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "a process makes one of them")]
enum ConfigCommand {
    /// Prints the effective configuration, each value with its origin.
    Print(ConfigArguments),
    /// Prints docs/configuration.md.
    Reference,
}

#[derive(Debug, Default, Args)]
struct ConfigArguments {
    /// TOML file; docs/configuration.md lists its keys.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Signs tokens for anybody who asks; listens on loopback only.
    #[arg(long)]
    dev: bool,
    /// Data folder.
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Address for clients.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<String>,
    /// Address for operators and the page.
    #[arg(long, value_name = "IP:PORT")]
    console: Option<String>,
    /// Address for clients over TLS; with --dev the node makes a certificate for it.
    #[arg(long, value_name = "IP:PORT")]
    tls_listen: Option<String>,
    /// Threads that hold connections.
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// Shards that also own a log.
    #[arg(long, value_name = "N")]
    lanes: Option<String>,
    /// Memory that the node may take, such as 8GiB.
    #[arg(long, value_name = "SIZE")]
    memory_limit: Option<String>,
    /// Takes over from the node that runs on the same data, without refusing a connection.
    #[arg(long, value_name = "BOOLEAN", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    takeover: Option<String>,
    /// Whether clients may agree on permessage-deflate.
    #[arg(long, value_name = "BOOLEAN", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    deflate: Option<String>,
    /// Level or filter of the log on standard error.
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
    /// Any key of the configuration, such as --set limits.connections_max=5000; may be repeated.
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("is KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

fn main() -> ExitCode {
    let mut command = Arguments::command();
    command = command.mut_subcommand("config", |config| {
        config.mut_subcommand("print", |print| print.after_long_help(config::help_text()))
    });
    let arguments = match Arguments::from_arg_matches(&command.get_matches()) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let is_bare = matches!(
        &arguments.command,
        Some(Command::Serve(given) | Command::Config { command: ConfigCommand::Print(given) })
            if given.config.is_none() && !given.dev
    );
    match run(arguments) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("antiphon: {error:#}");
            if is_bare && error.is::<config::ConfigErrors>() {
                eprintln!("Give a configuration by --config FILE (docs/configuration.md), or --dev, which needs none.");
            }
            ExitCode::from(if error.is::<config::ConfigErrors>() { 2 } else { 1 })
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let done = match arguments.command {
        None => serve(ConfigArguments { dev: true, ..ConfigArguments::default() }),
        Some(Command::Serve(arguments)) => serve(arguments),
        Some(Command::Echo { listen, shards, deflate, broadcast, tls_certificate, tls_key }) => {
            start_log("info");
            let mode = if broadcast { EchoMode::Broadcast } else { EchoMode::Echo { deflate } };
            let files = CertificateFiles { pairs: tls_certificate.into_iter().zip(tls_key).collect() };
            node::echo(listen, usize::try_from(shards)?, mode, &files)
        }
        Some(Command::Certificate { out, names }) => {
            if ["certificate.pem", "key.pem"].iter().any(|name| out.join(name).exists()) {
                anyhow::bail!("{} has a certificate or a key already; choose another folder", out.display());
            }
            let files = make_certificate(&out, "", names)?;
            let (certificate, key) = files.pairs.first().context("a certificate was made")?;
            print(&format!("{}\n{}\n", certificate.display(), key.display()))
        }
        Some(Command::Config { command: ConfigCommand::Print(arguments) }) => {
            let (config, values) = load(arguments)?;
            config.warnings.iter().for_each(|warning| eprintln!("antiphon: {warning}"));
            print(&values.print())
        }
        Some(Command::Config { command: ConfigCommand::Reference }) => print(&config::reference_markdown()),
        Some(Command::Token { user, device, data }) => {
            let (config, _) = load(ConfigArguments { dev: true, data, ..ConfigArguments::default() })?;
            let key = dev_key(&config.node.data)?;
            print(&format!("{}\n", new_dev_token(&key, &user, device.as_ref()).0))
        }
        Some(Command::ApiKey { name, scopes }) => {
            let secret = new_secret();
            let mut unique = Vec::new();
            scopes.into_iter().for_each(|scope| {
                if !unique.contains(&scope) {
                    unique.push(scope)
                }
            });
            let key = Key::of_secret(&name, &secret, &unique).map_err(anyhow::Error::msg)?;
            eprintln!("The secret, which is shown this once; it is sent as Authorization: Bearer …\n\n  {secret}\n");
            print(&key.entry())
        }
        // It has exit codes of its own.
        Some(Command::Store(arguments)) => return Ok(store::run(arguments)),
        Some(Command::Version) => print(concat!("antiphon ", env!("CARGO_PKG_VERSION"), "\n")),
    };
    done.map(|()| ExitCode::SUCCESS)
}

fn serve(arguments: ConfigArguments) -> anyhow::Result<()> {
    let (config, _) = load(arguments)?;
    start_log(&config.log_filter);
    config.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    node::run(config)
}

fn load(arguments: ConfigArguments) -> anyhow::Result<(Config, Values)> {
    let file = match arguments.config {
        None => None,
        Some(path) => {
            let text = fs::read_to_string(&path).with_context(|| format!("--config {}", path.display()))?;
            Some((path, text))
        }
    };
    let named = [
        ("--data", "node.data", arguments.data),
        ("--listen", "node.listen", arguments.listen),
        ("--console", "node.console", arguments.console),
        ("--tls-listen", "tls.listen", arguments.tls_listen),
        ("--shards", "node.shards", arguments.shards),
        ("--lanes", "node.lanes", arguments.lanes),
        ("--memory-limit", "limits.memory_bytes_max", arguments.memory_limit),
        ("--takeover", "node.takeover", arguments.takeover),
        ("--deflate", "websocket.deflate", arguments.deflate),
        ("--log", "log.filter", arguments.log),
    ];
    let named =
        named.into_iter().filter_map(|(flag, key, value)| value.map(|value| (flag.to_owned(), key.to_owned(), value)));
    let set = arguments.set.into_iter().map(|(key, value)| ("--set".to_owned(), key, value));
    let sources = Sources {
        file,
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        flags: set.chain(named).collect(),
        dev: arguments.dev,
        cores: available_parallelism().map_or(1, usize::from),
    };
    Ok(Config::load(&sources)?)
}

fn start_log(filter: &str) {
    let filter = filter.parse::<tracing_subscriber::EnvFilter>().unwrap_or_default();
    // Colour is for eyes; files and journals get plain text (and https://no-color.org is heeded).
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(colour).init();
}

/// A reader that went away (`antiphon config print | head`) is no failure.
fn print(text: &str) -> anyhow::Result<()> {
    match io::Write::write_all(&mut io::stdout(), text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

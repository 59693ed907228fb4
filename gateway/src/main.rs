//! The `antiphon` command.

use std::net::SocketAddr;

use clap::Parser;

#[derive(Parser)]
#[command(version, about)]
enum Arguments {
    /// A plain WebSocket echo, to measure and test the net ring and the codec.
    Echo {
        /// Address and port.
        #[arg(long, default_value = "127.0.0.1:9001")]
        listen: SocketAddr,
        /// How many shards; as many as cores if not given.
        #[arg(long)]
        shards: Option<usize>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse() {
        Arguments::Echo { listen, shards } => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            antiphon_gateway::echo::run_echo(listen, shards.unwrap_or(cores))
        }
    }
}

//! Who is taken, and how fast: the keys under `[admission]`, checked.

use super::{Problem, Values};
use crate::core::{
    address::{Block, Blocks},
    admission::{ForwardedHeader, Rules, share_of_connections},
    proxy::ProxyRules,
    rate::Rate,
};

/// Who is taken, and how fast. Numbers are the node's; 0 is no limit.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    /// New connections per second from one address.
    pub address_per_second_max: u32,
    /// New connections from it at once.
    pub address_burst_max: u32,
    /// New connections per second from everybody.
    pub node_per_second_max: u32,
    /// New connections from everybody at once.
    pub node_burst_max: u32,
    /// Connections that one address may hold.
    pub connections_per_address_max: u32,
    /// Addresses without a limit of their own.
    pub exempt: Blocks,
    /// Load balancers that speak the PROXY protocol.
    pub proxy_protocol_from: Blocks,
    /// HTTP proxies whose header is believed.
    pub forwarded_from: Blocks,
    /// That header.
    pub forwarded_header: ForwardedHeader,
}

impl Admission {
    /// One shard's rules, with a secret that all shards may share.
    #[must_use]
    pub fn share(&self, shards: u16, seed: u64) -> Rules {
        Rules {
            node: Rate::share(self.node_per_second_max, self.node_burst_max, shards),
            address: Rate::share(self.address_per_second_max, self.address_burst_max, shards),
            connections_per_address_max: share_of_connections(self.connections_per_address_max, shards),
            exempt: self.exempt.clone(),
            forwarded_from: self.forwarded_from.clone(),
            forwarded_header: self.forwarded_header,
            seed,
        }
    }

    /// From whom a header of the PROXY protocol is required.
    #[must_use]
    pub fn proxy_rules(&self, timeout_ms: u64) -> ProxyRules {
        ProxyRules { from: self.proxy_protocol_from.clone(), timeout_ms }
    }
}

pub(super) fn load(values: &Values, problems: &mut Vec<Problem>) -> Admission {
    let number = |name: &str| values.integer(name).unwrap_or_default() as u32;
    let mut blocks = |name: &str| -> Blocks {
        let parsed = values.list(name).into_iter().map(|text| (text.parse::<Block>(), text));
        let good = parsed.filter_map(|(block, text)| match block {
            Ok(block) => Some(block),
            Err(error) => {
                problems.push(Problem { origin: values.origin(name), text: format!("{name}: {text:?} {error}") });
                None
            }
        });
        good.collect()
    };
    let (exempt, proxy_protocol_from, forwarded_from) =
        (blocks("admission.exempt"), blocks("admission.proxy_protocol_from"), blocks("admission.forwarded_from"));
    let header = values.text("admission.forwarded_header").unwrap_or_default();
    let forwarded_header = match header.to_ascii_lowercase().as_str() {
        "forwarded" => ForwardedHeader::Forwarded,
        "x-forwarded-for" => ForwardedHeader::XForwardedFor,
        _ => {
            let origin = values.origin("admission.forwarded_header");
            let text = format!("admission.forwarded_header: {header:?} is neither X-Forwarded-For nor Forwarded");
            problems.push(Problem { origin, text });
            ForwardedHeader::default()
        }
    };
    Admission {
        address_per_second_max: number("admission.address_per_second_max"),
        address_burst_max: number("admission.address_burst_max"),
        node_per_second_max: number("admission.node_per_second_max"),
        node_burst_max: number("admission.node_burst_max"),
        connections_per_address_max: number("admission.connections_per_address_max"),
        exempt,
        proxy_protocol_from,
        forwarded_from,
        forwarded_header,
    }
}

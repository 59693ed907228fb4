//! Addresses as admission sees them: blocks of them, lists of blocks, and what stands for one client.
//!
//! Invariant: an IPv4 address that comes mapped into IPv6 is that IPv4 address everywhere here, so that a limit or an exemption cannot be
//! got round by the other spelling.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// A block of addresses: those that begin with the same bits (RFC 4632 §3.1, RFC 4291 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    network: IpAddr,
    prefix_bits: u8,
}

/// Why a text is no block of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// Write an address, or an address, a slash and a number of bits.
    #[error("is not a block of addresses such as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1")]
    NotABlock,
    /// The bits behind the prefix must be zero: most likely another prefix was meant.
    #[error("has bits behind its prefix; the block is {0}")]
    HostBits(Block),
}

impl Block {
    /// Whether the address lies in the block.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.network.is_ipv4() && cut(address, self.prefix_bits) == self.network
    }
}

impl FromStr for Block {
    type Err = BlockError;

    fn from_str(text: &str) -> Result<Self, BlockError> {
        let (address, prefix) = text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
        let address: IpAddr = address.parse().map_err(|_| BlockError::NotABlock)?;
        let bits_max = if address.is_ipv4() { 32 } else { 128 };
        let digits = |prefix: &str| prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix_bits = match prefix {
            None => bits_max,
            Some(prefix) => prefix.parse().ok().filter(|_| digits(prefix)).ok_or(BlockError::NotABlock)?,
        };
        if prefix_bits > bits_max {
            return Err(BlockError::NotABlock);
        }
        let block = match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(mapped)) if prefix_bits >= 96 => {
                Self { network: cut(mapped.into(), prefix_bits - 96), prefix_bits: prefix_bits - 96 }
            }
            _ => Self { network: cut(address, prefix_bits), prefix_bits },
        };
        let whole = if block.network.is_ipv4() { address.to_canonical() } else { address };
        if block.network == whole { Ok(block) } else { Err(BlockError::HostBits(block)) }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.network, self.prefix_bits)
    }
}

/// The address with everything behind its first bits cleared.
fn cut(address: IpAddr, prefix_bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix_bits)).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix_bits)).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

/// A list of blocks: an operator's load balancers, a handful, so it is walked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Blocks(Vec<Block>);

impl Blocks {
    /// Whether the address lies in any of them.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|block| block.contains(address))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Block> for Blocks {
    fn from_iter<I: IntoIterator<Item = Block>>(blocks: I) -> Self {
        Self(blocks.into_iter().collect())
    }
}

/// What stands for one client: an IPv4 address, or the /64 of an IPv6 address, of which a host commonly has all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source(u64);

impl Source {
    /// The number that it is.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }
}

impl From<IpAddr> for Source {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            // Beside all of IPv6: no host has an address that begins 0000:0001 (RFC 4291 §2.4).
            IpAddr::V4(address) => 1 << 32 | u64::from(address.to_bits()),
            IpAddr::V6(address) => (address.to_bits() >> 64) as u64,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_block_holds_what_begins_as_it_does() {
        for (block, inside, outside) in [
            ("10.0.0.0/8", "10.255.1.2", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.1.1", "::10.1.1.1"),
            ("192.0.2.1", "192.0.2.1", "192.0.2.2"),
            ("192.0.2.128/25", "192.0.2.128", "192.0.2.127"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("2001:db8::/32", "2001:db8:ffff::", "2001:db9::"),
            ("2001:db8::1", "2001:db8::1", "2001:db8::2"),
            ("::ffff:10.0.0.0/104", "10.9.9.9", "11.9.9.9"),
        ] {
            let parsed: Block = block.parse().unwrap();
            assert!(parsed.contains(address(inside)), "{block} {inside}");
            assert!(!parsed.contains(address(outside)), "{block} {outside}");
        }
    }

    #[test]
    fn what_is_no_block_is_refused() {
        for text in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "10.0.0.0/+8", "/8", "a/8", "10.0.0.0/8/8"] {
            assert_eq!(text.parse::<Block>(), Err(BlockError::NotABlock), "{text}");
        }
        for (text, meant) in [("10.0.0.1/8", "10.0.0.0/8"), ("2001:db8::1/32", "2001:db8::/32")] {
            let Err(BlockError::HostBits(block)) = text.parse::<Block>() else { panic!("{text}") };
            assert_eq!(block.to_string(), meant);
        }
    }

    #[test]
    fn one_client_is_one_source() {
        let source = |text: &str| Source::from(address(text));
        assert_eq!(source("192.0.2.1"), source("::ffff:192.0.2.1"));
        assert_eq!(source("2001:db8::1"), source("2001:db8::ffff:0:1"));
        assert_ne!(source("2001:db8::1"), source("2001:db8:0:1::1"));
        assert_ne!(source("192.0.2.1"), source("192.0.2.2"));
        assert_ne!(source("0.0.0.0"), source("::1"));
    }
}

//! Tables of configurations and what becomes of them.

use super::*;
use crate::core::{admission::ForwardedHeader, rate::Rate};

fn sources(file: &str) -> Sources {
    let mut sources = Sources { cores: 4, ..Sources::default() };
    if !file.is_empty() {
        sources.file = Some((PathBuf::from("conf/antiphon.toml"), file.to_owned()));
    }
    sources
}

fn dev() -> Sources {
    Sources { dev: true, ..sources("") }
}

fn flag(mut sources: Sources, flag: &str, key: &str, value: &str) -> Sources {
    sources.flags.push((flag.to_owned(), key.to_owned(), value.to_owned()));
    sources
}

fn environment(mut sources: Sources, name: &str, value: &str) -> Sources {
    sources.environment.push((name.to_owned(), value.to_owned()));
    sources
}

fn problems(sources: &Sources) -> Vec<String> {
    match Config::load(sources) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.0.iter().map(ToString::to_string).collect(),
    }
}

const GOOD: &str = "
[auth]
audience = \"chat\"
hs256_secret = \"0123456789abcdef0123456789abcdef\"
";

#[test]
fn development_needs_nothing() {
    let (config, _) = Config::load(&dev()).unwrap();
    assert!(matches!(config.auth, Auth::Dev) && !config.websocket_deflate);
    assert_eq!((config.node.shards, config.node.lanes), (4, 1));
    assert_eq!(config.node.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.origins("127.0.0.1:9".parse().unwrap())[1], "http://localhost:9");
}

#[test]
fn the_http_api_is_off_until_it_has_an_address_and_keys() {
    let listens = |sources: &Sources| Config::load(sources).unwrap().0.api.map(|api| api.listen.to_string());
    assert_eq!(listens(&sources(GOOD)), None);
    assert_eq!(listens(&dev()).unwrap(), "127.0.0.1:8082");
    assert_eq!(listens(&flag(dev(), "--console", "node.console", "127.0.0.1:0")).unwrap(), "127.0.0.1:0");
    assert_eq!(listens(&flag(dev(), "--set", "api.listen", "[::1]:9")).unwrap(), "[::1]:9");
    for (all, expected) in [
        (sources(&format!("[api]\nlisten = \"127.0.0.1:9\"\n{GOOD}")), "api.keys_file: is required with api.listen"),
        (sources(&format!("[api]\nkeys_file = \"none\"\n{GOOD}")), "api.keys_file: has no use without api.listen"),
        (
            sources(&format!("[api]\nlisten = \"127.0.0.1:9\"\nkeys_file = \"none\"\n{GOOD}")),
            "api.keys_file: conf/none: No such file",
        ),
        (flag(dev(), "--set", "api.listen", "0.0.0.0:9"), "api.listen: --dev makes a key for everything"),
        (flag(dev(), "--set", "api.listen", "127.0.0.1:8081"), "api.listen: 127.0.0.1:8081 is taken by node.console"),
    ] {
        let problems = problems(&all);
        assert!(problems.len() == 1 && problems[0].contains(expected), "{expected}: {problems:?}");
    }
}

#[test]
fn a_key_for_tokens_needs_a_secret_to_sign_them_with() {
    use crate::outside::backend::keys::{Key, Scope};
    let path = std::env::temp_dir().join(format!("antiphon-config-keys-{}", std::process::id()));
    std::fs::write(&path, Key::of_secret("shop", "secret", &[Scope::Tokens]).unwrap().entry()).unwrap();
    let api = format!("[api]\nlisten = \"10.0.0.1:9\"\nkeys_file = \"{}\"\n", path.display());
    let (config, _) = Config::load(&sources(&format!("{api}{GOOD}"))).unwrap();
    assert!(config.api.unwrap().issuer.is_some());
    assert!(config.warnings.iter().any(|warning| warning.contains("speaks no TLS")), "{:?}", config.warnings);
    let without = format!("{api}{GOOD}algorithms = [\"EdDSA\"]\n");
    assert!(problems(&sources(&without)).iter().any(|problem| problem.contains("key \"shop\" is for tokens")));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn the_operators_page_is_off_until_it_has_keys() {
    use crate::outside::backend::keys::{Key, Scope};
    let operator = |sources: &Sources| Config::load(sources).unwrap().0.operator;
    assert!(operator(&sources(GOOD)).is_none());
    assert!(operator(&dev()).unwrap().file.is_none());
    let none = sources(&format!("[operator]\nkeys_file = \"none\"\n{GOOD}"));
    assert!(problems(&none)[0].contains("operator.keys_file: conf/none: No such file"), "{:?}", problems(&none));
    let path = std::env::temp_dir().join(format!("antiphon-config-operator-{}", std::process::id()));
    let with = |scope| {
        std::fs::write(&path, Key::of_secret("ops", "secret", &[scope]).unwrap().entry()).unwrap();
        let file = format!("[operator]\nkeys_file = \"{}\"\n{GOOD}", path.display());
        Config::load(&sources(&file)).unwrap().0
    };
    let warned =
        |config: &Config| config.warnings.iter().any(|warning| warning.contains("no key has the scope operate"));
    let (operates, signs) = (with(Scope::Operate), with(Scope::Tokens));
    assert_eq!((warned(&operates), warned(&signs)), (false, true));
    assert!(operates.operator.unwrap().keys.iter().all(|key| key.has(Scope::Operate)));
    std::fs::remove_file(path).unwrap();
}

#[test]
fn later_sources_win_and_are_named() {
    let file = format!("[limits]\nconnections_max = 10\nrequests_burst_max = 0x100\n[node]\ndata = \"d\"\n{GOOD}");
    let all = environment(sources(&file), "ANTIPHON_LIMITS_CONNECTIONS_MAX", "20");
    let all = flag(all, "--set", "limits.connections_max", "30");
    let all = flag(all, "--deflate", "websocket.deflate", "true");
    let (config, values) = Config::load(&all).unwrap();
    assert_eq!(config.limits.connections_max, 30);
    assert_eq!(config.limits.requests_burst_max, 256);
    assert!(config.websocket_deflate);
    assert_eq!(config.node.data, PathBuf::from("conf/d"));
    let print = values.print();
    for line in [
        "connections_max = 30 # flag --set",
        "requests_burst_max = 256 # conf/antiphon.toml:3",
        "listen = \"127.0.0.1:8080\" # default",
        "deflate = true # flag --deflate",
        "hs256_secret = \"(hidden)\" # conf/antiphon.toml:9",
        "# issuer is not set",
    ] {
        let found = print.lines().any(|found| found.split_whitespace().collect::<Vec<_>>().join(" ") == line);
        assert!(found, "{line} is not in\n{print}");
    }
    assert!(!print.contains("0123456789"));
    // What is printed is a configuration again.
    toml::from_str::<toml::Table>(&print).unwrap();
    let environment_only = environment(sources(&file), "ANTIPHON_LIMITS_CONNECTIONS_MAX", "20");
    assert_eq!(Config::load(&environment_only).unwrap().0.limits.connections_max, 20);
}

#[test]
fn every_problem_is_listed_with_its_line() {
    let file = "listen = \"0.0.0.0:1\"
[node]
listne = \"0.0.0.0:1\"
listen = \"localhost:80\"
shards = \"two\"
lanes = 17
[limits]
connections_max = -1
page_items_max = 1.5
[broswers]
origins_allowed = []
[log]
filter = \"a=loud\"
[websocket]
deflate = 1
[auth]
audience = \"chat\"
hs256_secret = \"short\"
";
    let all = flag(sources(file), "--shards", "node.shards", "0");
    let all = environment(all, "ANTIPHON_STORE_LOG_FILE_BYTES", "64MiB");
    let all = environment(all, "ANTIPHON_WEBSOCKET_DEFLATE", "on");
    assert_eq!(
        problems(&all),
        [
            "conf/antiphon.toml:1: unknown table listen; did you mean node.listen, under [node]?",
            "conf/antiphon.toml:3: unknown key node.listne; did you mean node.listen?",
            "conf/antiphon.toml:4: node.listen: \"localhost:80\" is not an address such as 127.0.0.1:8080 or [::1]:8080",
            "conf/antiphon.toml:5: node.shards: is a whole number from 1 to 512, not string",
            "conf/antiphon.toml:6: node.lanes: 17 is not from 1 to 16",
            "conf/antiphon.toml:8: limits.connections_max: -1 is not from 1 to 16000000",
            "conf/antiphon.toml:9: limits.page_items_max: is a whole number from 1 to 200, not float",
            "conf/antiphon.toml:10: unknown table broswers; did you mean browsers?",
            "conf/antiphon.toml:13: log.filter: \"a=loud\" is not a filter: error parsing level filter: \
             expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5",
            "conf/antiphon.toml:15: websocket.deflate: is true or false, not integer",
            "conf/antiphon.toml:18: auth.hs256_secret: an HS256 secret needs at least 32 bytes, this one has 5",
            "env ANTIPHON_STORE_LOG_FILE_BYTES: store.log_file_bytes: \"64MiB\" is not a whole number from 2097152 to 4294967296",
            "env ANTIPHON_WEBSOCKET_DEFLATE: websocket.deflate: \"on\" is neither true nor false",
            "flag --shards: node.shards: 0 is not from 1 to 512",
        ]
    );
}

#[test]
fn a_file_that_is_no_toml_is_told_by_line() {
    let found = problems(&sources("[node]\nlisten = \n[node]\nshards = 0\n"));
    assert!(found[0].starts_with("conf/antiphon.toml:2: "), "{found:?}");
    assert!(found.iter().any(|problem| problem.starts_with("conf/antiphon.toml:3: ")), "{found:?}");
}

#[test]
fn values_must_fit_together() {
    let with = |more: &str| sources(&format!("{more}\n{GOOD}"));
    let check = |sources: &Sources, expected: &str| {
        let found = problems(sources);
        assert!(found.len() == 1 && found[0].contains(expected), "{expected}: {found:?}");
    };
    check(&with("[node]\nshards = 1\nlanes = 2"), "2 lanes need as many shards");
    check(&with("[node]\nshards = 60\nlanes = 5"), "more than the 4 cores");
    check(&with("[node]\nlisten = \"127.0.0.1:8081\""), "same address as node.listen");
    check(&with("[node]\nwebsocket_url = \"https://x\""), "not a ws:// or wss:// URL");
    check(&with("[node]\nwebsocket_url = \"wss://x; script-src *\""), "not a ws:// or wss:// URL");
    check(&with("[browsers]\norigins_allowed = [\"chat.example.com\"]"), "is not an origin");
    check(&with("[browsers]\norigins_allowed = [\"https://a.example/\"]"), "is not an origin");
    check(&with("[limits]\npage_items_max = 10"), "page_items_default: is above");
    check(&with("[limits]\nrequests_per_second_max = 1000"), "requests_burst_max: is below");
    check(&with("[store]\nlog_file_bytes = 2097153"), "multiple of 4096");
    check(&with("[timing]\nhead_timeout_ms = 20000"), "head_timeout_ms: is above");
    check(&with("[limits]\nframes_per_second_max = 49"), "frames_per_second_max: is below");
    check(&with("[limits]\nframes_burst_max = 199"), "frames_burst_max: is below");
    check(
        &with("[admission]\nexempt = [\"10.0.0.1/8\"]"),
        "\"10.0.0.1/8\" has bits behind its prefix; the block is 10.0.0.0/8",
    );
    check(&with("[admission]\nproxy_protocol_from = [\"balancer\"]"), "is not a block of addresses");
    check(&with("[admission]\nforwarded_header = \"X-Real-IP\""), "neither X-Forwarded-For nor Forwarded");
    assert!(problems(&sources(""))[0].contains("auth.audience: is required"));
}

#[test]
fn admission_is_read_and_shared_among_shards() {
    let file = format!(
        "[admission]\nexempt = [\"10.0.0.0/8\", \"::1\"]\nforwarded_header = \"forwarded\"\nconnections_per_address_max = 100\n{GOOD}"
    );
    let admission = Config::load(&sources(&file)).unwrap().0.admission;
    assert!(admission.exempt.contain("10.1.1.1".parse().unwrap()) && admission.proxy_protocol_from.is_empty());
    let rules = admission.share(4, 9);
    assert_eq!((rules.forwarded_header, rules.seed), (ForwardedHeader::Forwarded, 9));
    assert_eq!((rules.connections_per_address_max, rules.node.is_limited()), (45, false));
    assert_eq!(rules.address, Rate::share(1_000, 30_000, 4));
}

#[test]
fn sizes_may_have_units() {
    let size = |text: &str| {
        let all = flag(dev(), "--memory-limit", "limits.memory_bytes_max", text);
        Config::load(&all).map(|(config, _)| config.limits.memory_bytes_max)
    };
    for (text, bytes) in [("134217728", 128 << 20), ("512MiB", 512 << 20), ("8 GB", 8_000_000_000), ("1TiB", 1 << 40)] {
        assert_eq!(size(text), Ok(Some(bytes)), "{text}");
    }
    for (text, expected) in [
        ("8g", "\"8g\" is not a size such as"),
        ("-1", "is not a size"),
        ("MiB", "is not a size"),
        ("18446744073709551615TB", "is not a size"),
        ("1MiB", "1048576 is not from 67108864 to"),
    ] {
        let error = size(text).unwrap_err();
        assert!(error.0[0].text.contains(expected), "{error}");
    }
    let file = |line: &str| format!("[limits]\nmemory_bytes_max = {line}\n{GOOD}");
    let read = |line: &str| Config::load(&sources(&file(line))).map(|(config, _)| config.limits.memory_bytes_max);
    assert_eq!((read("\"1GiB\""), read("1073741824")), (Ok(Some(1 << 30)), Ok(Some(1 << 30))));
    assert!(read("true").unwrap_err().0[0].text.contains("is a size such as"));
    let (config, _) = Config::load(&dev()).unwrap();
    assert_eq!(config.limits.memory_bytes_max, None);
    assert_eq!((config.limits.frames_per_second_max, config.limits.frames_burst_max), (200, 800));
}

#[test]
fn keys_for_tokens_are_read_and_judged() {
    let keys = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/keys");
    let auth = |lines: &str| sources(&format!("[auth]\naudience = \"chat\"\n{}", lines.replace("KEYS", keys)));
    assert_eq!(problems(&auth("jwks_file = \"KEYS/jwks.json\"")), [""; 0]);
    assert_eq!(problems(&auth("eddsa_public_key_file = \"KEYS/ed25519-public.pem\"")), [""; 0]);
    for (lines, expected) in [
        ("", "no key to check tokens with"),
        ("es256_public_key_file = \"KEYS/none.pem\"", "No such file"),
        ("es256_public_key_file = \"KEYS/ed25519-public.pem\"", "not a PEM public key for ES256"),
        ("jwks_file = \"KEYS/p256-public.pem\"", "not a JWK set"),
        ("jwks_file = \"KEYS/jwks.json\"\nalgorithms = [\"RS256\"]", "none of EdDSA, ES256, HS256"),
        (
            "eddsa_public_key_file = \"KEYS/ed25519-public.pem\"\nalgorithms = [\"ES256\"]",
            "allows none of the algorithms",
        ),
    ] {
        let found = problems(&auth(lines));
        assert!(found[0].contains(expected), "{expected}: {found:?}");
    }
    let dev_audience = auth("jwks_file = \"KEYS/jwks.json\"").file.unwrap().1.replace("chat", "antiphon-dev");
    assert!(problems(&sources(&dev_audience))[0].contains("development nodes only"));
}

#[test]
fn development_stays_on_loopback() {
    for address in ["0.0.0.0:80", "[::]:80", "192.168.1.1:80", "[::ffff:10.0.0.1]:80"] {
        for (flag_name, key) in [("--listen", "node.listen"), ("--console", "node.console")] {
            let found = problems(&flag(dev(), flag_name, key, address));
            assert!(found.len() == 1 && found[0].contains("loopback only"), "{address}: {found:?}");
            assert!(found[0].starts_with(&format!("flag {flag_name}: ")), "{found:?}");
        }
    }
    for address in ["127.0.0.2:80", "[::1]:80", "[::ffff:127.0.0.1]:80", "127.0.0.1:0"] {
        assert_eq!(problems(&flag(dev(), "--listen", "node.listen", address)), [""; 0], "{address}");
    }
}

#[test]
fn an_unknown_variable_is_warned_of() {
    let all = environment(dev(), "ANTIPHON_NODE_SHRADS", "2");
    let all = environment(all, "ANTIPHON_SERVICE_HOST", "10.0.0.1");
    let (config, _) = Config::load(&environment(all, "PATH", "/bin")).unwrap();
    assert_eq!(
        config.warnings,
        [
            "the environment's ANTIPHON_NODE_SHRADS is no key of the configuration; did you mean ANTIPHON_NODE_SHARDS?",
            "the environment's ANTIPHON_SERVICE_HOST is no key of the configuration",
        ]
    );
}

#[test]
fn the_reference_is_the_document() {
    let document = include_str!("../../../docs/configuration.md");
    assert!(document == reference_markdown(), "run `antiphon config reference > docs/configuration.md`");
}

//! What the description says, against what there is; and calls while there is no lane to ask.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use serde_json::Value;

use super::{
    keys::{Key, Keys, new_secret},
    problem::{Own, status_of},
    routes::ROUTES,
    *,
};

const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];

fn description() -> Value {
    serde_json::from_str(DESCRIPTION).unwrap()
}

/// Every call that is described: method, path, and what stands under it.
fn described(description: &Value) -> Vec<(String, String, &Value)> {
    let paths = description["paths"].as_object().unwrap().iter();
    paths
        .flat_map(|(path, item)| {
            let calls = item.as_object().unwrap().iter().filter(|(method, _)| METHODS.contains(&method.as_str()));
            calls.map(|(method, call)| (method.to_uppercase(), path.clone(), call))
        })
        .collect()
}

#[test]
fn every_route_is_described_and_every_description_routed() {
    let description = description();
    let described: BTreeSet<(String, String)> =
        described(&description).into_iter().map(|(method, path, _)| (method, path)).collect();
    let routed: BTreeSet<(String, String)> =
        ROUTES.iter().map(|route| (route.method.to_owned(), route.path.to_owned())).collect();
    assert_eq!(described, routed);
}

#[test]
fn a_description_names_the_scope_and_whether_there_is_a_body() {
    let description = description();
    for (method, path, call) in described(&description) {
        let route = ROUTES.iter().find(|route| route.method == method && route.path == path).unwrap();
        let says = call["description"].as_str().unwrap_or_default();
        let expected = route.scope.map_or_else(String::new, |scope| format!("For keys with the scope `{scope}`."));
        assert_eq!(says, expected, "{method} {path}");
        assert_eq!(call.get("security").is_some(), route.scope.is_none(), "{method} {path}");
        assert_eq!(call.get("requestBody").is_some(), requests::has_body(route.operation), "{method} {path}");
    }
}

#[test]
fn every_code_is_described_and_its_status_too() {
    let description = description();
    let codes = description["components"]["schemas"]["Problem"]["properties"]["code"]["enum"].as_array().unwrap();
    let codes: Vec<&str> = codes.iter().map(|code| code.as_str().unwrap()).collect();
    let own = Own::ALL.map(Own::name_and_status);
    let expected: Vec<&str> = ErrorCode::ALL.iter().map(|code| code.name()).chain(own.map(|(name, _)| name)).collect();
    assert_eq!(codes, expected);
    let statuses = description["components"]["responses"].as_object().unwrap();
    for status in ErrorCode::ALL.iter().map(|code| status_of(*code)).chain(own.map(|(_, status)| status)) {
        // It is the answer to what is not described.
        let is_told = statuses.contains_key(status.as_str()) || status == StatusCode::METHOD_NOT_ALLOWED;
        assert!(is_told, "{status}");
    }
}

#[test]
fn a_key_stands_in_one_header_only() {
    let check = |values: &[&str], expected: Option<&str>| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        assert_eq!(bearer(&headers), expected, "{values:?}");
    };
    check(&["Bearer abc"], Some("abc"));
    check(&["bearer  abc"], Some("abc"));
    check(&[], None);
    check(&["abc"], None);
    check(&["Basic abc"], None);
    check(&["Bearer a", "Bearer a"], None);
}

#[test]
fn a_node_that_has_no_lanes_yet_or_no_more_says_so_at_once() {
    let placement = Placement { shards: 1, lanes: 1 };
    let (mesh, metrics, secret) = (crate::mesh::Mesh::new(placement), Metrics::new(1, 1), new_secret());
    let mut keys = Keys::default();
    keys.add(Key::of_secret("test", &secret, &Scope::ALL).unwrap()).unwrap();
    let backend = Backend {
        listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        keys: KeyRing::new(keys),
        issuer: Some(TokenIssuer::for_dev(&[7; 32])),
        requests_per_second_max: 0,
        placement,
        end: mesh.end(placement.outside()),
        bell: Bell::new().unwrap(),
        wakers: [Waker::new().unwrap()].into(),
    };
    let config = crate::outside::OutsideConfig {
        console: "127.0.0.1:0".parse().unwrap(),
        websocket_url: "ws://127.0.0.1:8080/".to_owned(),
        dev_key: None,
        operator: None,
    };
    let outside = crate::outside::Outside::start_whole(config, Arc::clone(&metrics), None, Some(backend), || (), || ());
    let address = outside.as_ref().unwrap().backend_address().unwrap();
    let ask = |call: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        let head = format!("Host: x\r\nAuthorization: Bearer {secret}\r\nConnection: close");
        stream.write_all(call.replace("HEAD", &head).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let list = "GET /v1/users/alice/conversations HTTP/1.1\r\nHEAD\r\n\r\n";
    for (phase, code) in [(Phase::Starting, "overloaded"), (Phase::Draining, "shutting_down")] {
        metrics.set_phase(phase);
        let answer = ask(list);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("retry-after: 1"), "{answer}");
        assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
        // For what asks no lane the node is there.
        let body = "Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{\"user\":\"a\"}";
        assert!(ask(&format!("POST /v1/tokens HTTP/1.1\r\nHEAD\r\n{body}")).starts_with("HTTP/1.1 200 "));
    }
}

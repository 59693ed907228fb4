//! The page's files, carried in the binary.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Response, StatusCode, header},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha1::{Digest, Sha1};

/// Name, content type, bytes.
const FILES: &[(&str, &str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// The folder of the operator's page.
const OPERATOR: &str = "operator/";

/// A file of the page, or of the operator's if there is one, or the answer that there is none.
pub(super) fn file(path: &str, request: &HeaderMap, has_operator: bool) -> Response<Body> {
    let name = match path.trim_start_matches('/') {
        "" => "index.html",
        "operator" => "operator/index.html",
        name => name,
    };
    let is_served = has_operator || !name.starts_with(OPERATOR);
    let found = FILES.iter().find(|(known, _, _)| *known == name).filter(|_| is_served);
    let Some((_, content_type, bytes)) = found else {
        let mut answer = Response::new(Body::from("not found\n"));
        *answer.status_mut() = StatusCode::NOT_FOUND;
        answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        return answer;
    };
    // Not for security: it tells a browser whether its copy is of this binary.
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(Sha1::digest(bytes)));
    let unchanged = request.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let mut answer = Response::new(if unchanged { Body::empty() } else { Body::from(*bytes) });
    if unchanged {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert(header::ETAG, HeaderValue::try_from(tag).expect("base64url is header text"));
    answer
}

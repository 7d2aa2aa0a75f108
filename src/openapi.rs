//! The API document: what the handlers declare, and what is true of all of them.

use std::sync::LazyLock;

use axum::{
    Json, Router,
    http::{HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::platform::{
    extract::ApiPath,
    problem::{Code, Problem},
    public::PublicPaths,
};

/// Where the viewer's script is.
const SCRIPT: &str = "/docs/scalar.js";
/// Where the viewer's own few lines are.
const START: &str = "/docs/start.js";

/// The viewer may load its script from here and call the API here, and nothing from anywhere else.
const DOCS_POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
     font-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'",
);

/// Completes the document: who may call what, and that every call may fail with a problem.
pub fn complete(declared: utoipa::openapi::OpenApi, public: PublicPaths) -> Value {
    let mut document = serde_json::to_value(declared).unwrap_or_default();
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        for (path, operations) in paths {
            let security = if public.include(path) { json!([]) } else { json!([{"access_token": []}]) };
            for operation in
                operations.as_object_mut().into_iter().flat_map(|operations| operations.values_mut())
            {
                let Some(operation) = operation.as_object_mut() else { continue };
                operation.insert("security".into(), security.clone());
                if let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) {
                    responses.insert("default".into(), json!({"$ref": "#/components/responses/Problem"}));
                }
            }
        }
    }
    let components = document.get_mut("components").and_then(Value::as_object_mut);
    if let Some(components) = components {
        components.insert("responses".into(), json!({"Problem": problem_response()}));
        let scheme = json!({"type": "http", "scheme": "bearer", "bearerFormat": "JWT"});
        components.insert("securitySchemes".into(), json!({"access_token": scheme}));
        if let Some(schemas) = components.get_mut("schemas").and_then(Value::as_object_mut) {
            schemas.insert("Problem".into(), problem_schema());
        }
    }
    document
}

fn problem_response() -> Value {
    json!({
        "description": "What went wrong (RFC 9457).",
        "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
    })
}

fn problem_schema() -> Value {
    let codes: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    json!({
        "type": "object",
        "required": ["type", "title", "status", "code", "detail", "request_id"],
        "properties": {
            "type": {"type": "string", "description": "Where the code is explained.", "example": "/problems/not_found"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "code": {"type": "string", "enum": codes, "description": "Stable; branch on this."},
            "detail": {"type": "string"},
            "request_id": {"type": "string", "description": "Also in `x-request-id`; quote it when you ask for help."},
            "errors": {
                "type": "array",
                "description": "On `validation_failed` only.",
                "items": {
                    "type": "object",
                    "required": ["pointer", "code", "detail"],
                    "properties": {
                        "pointer": {"type": "string", "description": "A JSON pointer into the body."},
                        "code": {"type": "string"},
                        "detail": {"type": "string"},
                    },
                },
            },
            "retry_after_s": {"type": "integer", "description": "Seconds after which trying again may help."},
            "plan": {"type": ["string", "null"], "description": "On 402, as are the next four."},
            "used": {"type": "integer"},
            "limit": {"type": "integer"},
            "resets_at": {"type": "string", "format": "date-time"},
            "upgrade_url": {"type": "string"},
            "manage_url": {"type": "string", "description": "On 409: the provider's page where it can be done instead."},
        },
    })
}

/// The document, its viewer, and the page of each error code.
pub fn router(document: &Value) -> Router {
    let text = Bytes::from(document.to_string());
    let document = move || async move { ([(header::CONTENT_TYPE, "application/json")], text) };
    Router::new()
        .route("/openapi.json", get(document))
        .route("/docs", get(docs))
        .route(SCRIPT, get(script))
        .route(START, get(start))
        .route("/problems/{code}", get(problem))
}

async fn docs() -> Response {
    let page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>DigitalMistress API</title>\
         <meta name=\"viewport\" content=\"width=device-width\"></head><body><div id=\"app\"></div>\
         <script src=\"{SCRIPT}\"></script><script src=\"{START}\"></script></body></html>"
    );
    ([(header::CONTENT_SECURITY_POLICY, DOCS_POLICY)], Html(page)).into_response()
}

/// The viewer is compiled in, so the page works without a network and tells nobody who reads it.
///
/// It has millions of bytes. All answers share one copy, or a few slow readers would fill the memory.
static VIEWER: LazyLock<Option<Bytes>> =
    LazyLock::new(|| scalar_api_reference::get_asset("scalar.js").map(Bytes::from));

async fn script() -> Response {
    match &*VIEWER {
        Some(script) => {
            let headers = [
                (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
                (header::CACHE_CONTROL, "public, max-age=86400"),
            ];
            (headers, script.clone()).into_response()
        }
        None => Problem::not_found().into_response(),
    }
}

async fn start() -> Response {
    let options = json!({
        "url": "/openapi.json",
        "telemetry": false,
        "withDefaultFonts": false,
        "hideClientButton": true,
        "agent": {"disabled": true},
        "mcp": {"disabled": true},
        "showDeveloperTools": "never",
    });
    let script = format!("Scalar.createApiReference('#app', {options})");
    ([(header::CONTENT_TYPE, "text/javascript; charset=utf-8")], script).into_response()
}

async fn problem(ApiPath(code): ApiPath<String>) -> Result<Response, Problem> {
    let code = Code::from_name(&code).ok_or_else(Problem::not_found)?;
    let body = json!({
        "code": code.as_str(),
        "status": code.status().as_u16(),
        "title": code.title(),
        "remedy": code.remedy(),
    });
    let headers = [(header::CACHE_CONTROL, "public, max-age=3600")];
    Ok((StatusCode::OK, headers, Json(body)).into_response())
}

/// The only answers that are no problems: they are given before any code of ours runs, and it offers no way to add to them.
const NOT_OURS: &str = "
## Before a request is one

What cannot be read as an HTTP/1.1 request is answered by the HTTP library: 400 where it is malformed, 431 where its head has
more than 64 KiB or more than 100 headers. These answers have no body, no code and no `x-request-id`, and the connection
closes. A head that takes longer than 10 seconds to arrive, and HTTP/2 without negotiation, get no answer: the connection
closes. A client that makes its requests with an HTTP library meets none of this but the 431.
";

/// `docs/errors.md`.
pub fn errors_page() -> String {
    use std::fmt::Write as _;

    let mut page = String::from(
        "# Error codes\n\nEvery error but those at the end is `application/problem+json` (RFC 9457). `code` is stable; branch on it. \
         `GET /problems/{code}` says the same.\n\n| code | status | what happened | what to do |\n|---|---|---|---|\n",
    );
    for code in Code::ALL {
        let (name, status) = (code.as_str(), code.status().as_u16());
        // Writing to a string cannot fail.
        let _ = writeln!(page, "| `{name}` | {status} | {} | {} |", code.title(), code.remedy());
    }
    page.push_str(NOT_OURS);
    page
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn answers_share_one_copy_of_the_viewer() {
        let first = script().await.into_body().collect().await.unwrap().to_bytes();
        let second = script().await.into_body().collect().await.unwrap().to_bytes();
        assert!(first.len() > 1_000_000);
        assert_eq!(first.as_ptr(), second.as_ptr());
    }
}

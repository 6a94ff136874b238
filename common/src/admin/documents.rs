//! What is made of the table of routes: a page for people, a document for machines.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use super::routes::Routes;

/// A small page with a link to everything that can be looked at.
pub(super) fn front_page(name: &str, routes: &Routes) -> String {
    let mut rows = String::new();
    for route in &routes.routes {
        let (method, path) = (route.method.as_str(), route.path);
        let shown = match method {
            "GET" if !path.contains('{') => format!("<a href=\"{path}\">{path}</a>"),
            _ => path.to_owned(),
        };
        let row = format!("<tr><td>{method}</td><td>{shown}</td><td>{}</td></tr>\n", escape(route.about));
        rows.push_str(&row);
    }
    let mut page = String::new();
    // Writing to a string cannot fail.
    write!(
        page,
        "<!doctype html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><title>{name}</title>\n<style>\
         body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 48rem; padding: 0 1rem }} \
         td {{ padding: .2rem 1rem .2rem 0 }} td:nth-child(-n+2) {{ font-family: monospace }}\
         </style></head>\n<body>\n<h1>{name}</h1>\n<table>\n{rows}\
         <tr><td>GET</td><td><a href=\"/api/v1/openapi.json\">/api/v1/openapi.json</a></td>\
         <td>these, for machines</td></tr>\n</table>\n</body>\n</html>\n"
    )
    .unwrap_or_default();
    page
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The OpenAPI 3.1 document.
pub(super) fn open_api(name: &str, routes: &Routes) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in &routes.routes {
        let responses =
            json!({ "200": { "description": "OK" }, "default": { "description": "why not, as text" } });
        let mut operation = Map::new();
        operation.insert("summary".to_owned(), json!(route.about));
        operation.insert("responses".to_owned(), responses);
        let named = route.path.split('/').filter_map(|it| it.strip_prefix('{')?.strip_suffix('}'));
        let parameter = |name: &str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
        let parameters: Vec<Value> = named.map(parameter).collect();
        if !parameters.is_empty() {
            operation.insert("parameters".to_owned(), Value::Array(parameters));
        }
        if route.is_open {
            operation.insert("security".to_owned(), json!([]));
        }
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Value::Object(path) = path {
            path.insert(route.method.as_str().to_ascii_lowercase(), Value::Object(operation));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": format!("{name} admin"), "version": "1" },
        "paths": paths,
        "components": { "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } } },
        "security": [{}, { "token": [] }],
    })
}

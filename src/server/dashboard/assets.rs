//! The style, the script and the icon of the pages. They are a part of the program.

use std::sync::LazyLock;

use actix_web::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, X_CONTENT_TYPE_OPTIONS};
use actix_web::{HttpRequest, HttpResponse};
use sha2::{Digest, Sha256};

use crate::server::etag;

/// A file that pages load.
struct Asset {
    content: &'static str,
    media_type: &'static str,
    etag: LazyLock<String>,
}

static STYLE: Asset = Asset {
    content: include_str!("pointsman.css"),
    media_type: "text/css; charset=utf-8",
    etag: LazyLock::new(|| etag_of(include_str!("pointsman.css"))),
};

static SCRIPT: Asset = Asset {
    content: include_str!("pointsman.js"),
    media_type: "text/javascript; charset=utf-8",
    etag: LazyLock::new(|| etag_of(include_str!("pointsman.js"))),
};

static ICON: Asset = Asset {
    content: include_str!("pointsman.svg"),
    media_type: "image/svg+xml",
    etag: LazyLock::new(|| etag_of(include_str!("pointsman.svg"))),
};

pub(super) async fn style(request: HttpRequest) -> HttpResponse {
    respond(&request, &STYLE)
}

pub(super) async fn script(request: HttpRequest) -> HttpResponse {
    respond(&request, &SCRIPT)
}

pub(super) async fn icon(request: HttpRequest) -> HttpResponse {
    respond(&request, &ICON)
}

fn respond(request: &HttpRequest, asset: &Asset) -> HttpResponse {
    let is_known = etag::is_known(request, &asset.etag);
    let mut response = if is_known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response
        .insert_header((ETAG, etag::quoted(&asset.etag)))
        // The browser asks each time, so that a new version of the program shows its own pages.
        .insert_header((CACHE_CONTROL, "no-cache"))
        .insert_header((X_CONTENT_TYPE_OPTIONS, "nosniff"));
    if is_known {
        return response.finish();
    }
    response.insert_header((CONTENT_TYPE, asset.media_type)).body(asset.content)
}

fn etag_of(content: &str) -> String {
    let hash: [u8; 32] = Sha256::digest(content.as_bytes()).into();
    hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_load_nothing_from_elsewhere() {
        for asset in [&STYLE, &SCRIPT, &ICON] {
            let content = asset.content.replace("http://www.w3.org/2000/svg", "");
            for forbidden in ["http:", "https:", "@import", "url(", "//cdn", "eval("] {
                assert!(!content.contains(forbidden), "{forbidden} in {}", asset.media_type);
            }
        }
        assert_ne!(*STYLE.etag, *SCRIPT.etag);
    }
}

//! The two URLs of an endpoint's metrics page, and who serves them. Built once.

use std::net::SocketAddr;

use url::Url;

use super::{fetch::ScrapeError, tls::Peer};
use scaler_core::{
    config::trigger::{PageSource, Protocol},
    endpoint::page_choice::PageKind,
    page::Wanted,
};

#[derive(Clone, Debug)]
pub(super) struct PageUrls {
    pub(super) peer: Peer,
    filtered: Url,
    plain: Url,
}

impl PageUrls {
    /// # Errors
    /// Where the address does not fit into a URL.
    pub(super) fn new(address: SocketAddr, page: &PageSource, wanted: &Wanted) -> Result<Self, ScrapeError> {
        let (scheme, peer) = match page.protocol {
            Protocol::Http => ("http", Peer::Anybody),
            Protocol::Https => ("https", Peer::Encrypted),
        };
        // Anew from its parts, for a URL has no room for the scope of an IPv6 address.
        let host = SocketAddr::new(address.ip(), address.port());
        let mut plain = Url::parse(&format!("{scheme}://{host}/"))
            .map_err(|error| ScrapeError::Connect(error.to_string()))?;
        let (path, query) = match page.path.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (page.path.as_str(), None),
        };
        plain.set_path(path);
        plain.set_query(query);

        let mut filtered = plain.clone();
        // vLLM mounts its metrics as an application of its own under /metrics: without the
        // slash the server answers with a redirect to it or drops the query.
        if !path.ends_with('/') {
            filtered.set_path(&format!("{path}/"));
        }
        let names = wanted.query();
        filtered.set_query(Some(&query.map_or_else(|| names.to_owned(), |query| format!("{query}&{names}"))));
        Ok(Self { peer, filtered, plain })
    }

    pub(super) fn of(&self, kind: PageKind) -> &Url {
        match kind {
            PageKind::Filtered => &self.filtered,
            PageKind::Plain => &self.plain,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_filtered_page_has_a_slash_and_a_query() {
        let wanted = Wanted::new([]);
        let query = wanted.query();
        assert!(query.starts_with("name[]=kaito_ratelimit_rejected_total&name[]=vllm:"), "{query}");
        let cases = [
            (
                Protocol::Http,
                "10.0.0.1:5000",
                "/metrics",
                "http://10.0.0.1:5000/metrics",
                "http://10.0.0.1:5000/metrics/?",
            ),
            (
                Protocol::Https,
                "[fd00::1]:8443",
                "/m/",
                "https://[fd00::1]:8443/m/",
                "https://[fd00::1]:8443/m/?",
            ),
            (Protocol::Http, "[fe80::1%3]:80", "/", "http://[fe80::1]/", "http://[fe80::1]/?"),
            (
                Protocol::Http,
                "10.0.0.1:5000",
                "/metrics?format=text",
                "http://10.0.0.1:5000/metrics?format=text",
                "http://10.0.0.1:5000/metrics/?format=text&",
            ),
        ];
        for (protocol, address, path, plain, filtered) in cases {
            let page =
                PageSource { protocol, port: None, path: path.to_owned(), timeout: Duration::from_secs(3) };
            let urls = PageUrls::new(address.parse().unwrap(), &page, &wanted).unwrap();
            assert_eq!(urls.of(PageKind::Plain).as_str(), plain);
            assert_eq!(urls.of(PageKind::Filtered).as_str(), format!("{filtered}{query}"));
        }
    }

    /// A trigger chooses path and port; whatever it writes, it is asked of the pod alone.
    #[test]
    fn no_path_leads_to_another_host() {
        for path in [
            "/@evil:80/",
            "/../..//evil/",
            "/\\\\evil",
            "/%2f%2fevil",
            "/?@evil",
            "//evil/metrics",
            "http://evil/",
        ] {
            let page = PageSource { path: path.to_owned(), ..PageSource::default() };
            let urls = PageUrls::new("10.0.0.1:5000".parse().unwrap(), &page, &Wanted::new([])).unwrap();
            for kind in [PageKind::Plain, PageKind::Filtered] {
                let url = urls.of(kind);
                assert_eq!((url.host_str(), url.port()), (Some("10.0.0.1"), Some(5000)), "{path}: {url}");
                assert_eq!((url.scheme(), url.username()), ("http", ""), "{path}: {url}");
            }
        }
    }
}

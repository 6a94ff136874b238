//! groove-http: requests over two apps, with headers edited both ways.

use anyhow::Result;
use bytes::Bytes;
use harness::http::{Response, send};
use harness::{Kind, Nginx, Proxy};
use http::Request;

use crate::configured;
use crate::table::{Row, Table};

const PROXY: &str = "http";
const REQUESTS: usize = 200;

pub(crate) struct Demo {
    proxy: Proxy,
    _shop: Nginx,
    _blog: Nginx,
}

impl Demo {
    pub(crate) fn start() -> Result<Self> {
        let (shop, blog) = (app("shop")?, app("blog")?);
        let addresses = [
            ("127.0.0.1:8080", "$LISTEN"),
            ("127.0.0.1:9680", "$ADMIN"),
            ("127.0.0.1:9001", "$SHOP"),
            ("127.0.0.1:9002", "$BLOG"),
        ];
        let builder = configured(Kind::Http, "http-demo.yaml", &addresses)?;
        let proxy = builder.set("SHOP", shop.address()).set("BLOG", blog.address()).start()?;
        Ok(Self { proxy, _shop: shop, _blog: blog })
    }

    pub(crate) fn by_hand(&self) -> String {
        let (at, admin) = (self.proxy.address(), self.proxy.admin());
        format!("http       curl -i -H 'Host: shop.example.test' http://{at}/   admin http://{admin}/")
    }

    pub(crate) fn show(&self, table: &mut Table) -> Result<()> {
        let mut right = 0;
        for number in 0..REQUESTS {
            let (host, app) = match number % 3 {
                0 => ("shop.example.test", "shop"),
                1 => ("blog.example.test", "blog"),
                _ => ("anna.blog.example.test", "blog"),
            };
            right += usize::from(self.ask(host)?.header("x-app") == app);
        }
        let all = format!("{REQUESTS} of {REQUESTS}");
        table.push(Row::same(
            PROXY,
            "requests answered by their own app",
            &all,
            format!("{right} of {REQUESTS}"),
        ));

        let shop = self.ask("shop.example.test")?;
        let text = shop.text();
        table.push(Row::same(
            PROXY,
            "X-Team set, X-Debug removed for the app",
            "team=basket debug=",
            line(&text, "team="),
        ));
        let edited =
            format!("cache={} powered={}", shop.header("cache-control"), shop.header("x-powered-by"));
        table.push(Row::same(
            PROXY,
            "Cache-Control set, X-Powered-By removed",
            "cache=no-store powered=",
            edited,
        ));
        let client = line(&text, "for=");
        table.push(Row::same(PROXY, "the app sees who asked", "for=127.0.0.1", client));
        let id = line(&text, "id=");
        table.push(Row::judged(PROXY, "a request id is given", "id=...", id.clone(), id.len() > 8));
        let unknown = self.ask("nobody.example.test")?.status;
        table.push(Row::same(PROXY, "a host that no app has", "404", unknown.as_str()));
        Ok(())
    }

    fn ask(&self, host: &str) -> Result<Response> {
        let request = Request::get("/").header("host", host).header("x-debug", "1");
        send(self.proxy.address(), request.body(Bytes::new())?)
    }
}

/// An app that says its name, and what it was asked with.
fn app(name: &str) -> Result<Nginx> {
    let location = "location / {
        default_type text/plain;
        add_header X-App NAME;
        add_header X-Powered-By nginx;
        return 200 'team=$http_x_team debug=$http_x_debug\\nfor=$http_x_forwarded_for\\nid=$http_x_request_id\\n';
    }";
    Nginx::serving(1, &location.replace("NAME", name))
}

/// The line that begins so.
fn line(text: &str, beginning: &str) -> String {
    text.lines().find(|line| line.starts_with(beginning)).unwrap_or_default().to_owned()
}

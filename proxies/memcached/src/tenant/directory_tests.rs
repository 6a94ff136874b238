use groove_common::config::{Listener, Secret};

use super::super::config::Credential;
use super::*;

fn listener(name: &str, port: u16) -> Listener {
    let address = groove_common::ids::Address::tcp("127.0.0.1", port);
    Listener { name: Some(name.to_owned()), ..Listener::new(address) }
}

struct Case {
    tenants: BTreeMap<String, config::Tenant>,
    default: Option<&'static str>,
    listeners: Vec<Listener>,
    makings: Makings,
}

impl Case {
    fn new() -> Self {
        let shop = config::Tenant {
            credentials: vec![Credential { user: "shop".into(), password: Secret::new("secret") }],
            certificates: vec!["shop.internal".into()],
            ..config::Tenant::default()
        };
        let news = config::Tenant { listeners: vec!["news".into()], ..config::Tenant::default() };
        Self {
            tenants: [("news".to_owned(), news), ("shop".to_owned(), shop)].into(),
            default: None,
            listeners: vec![listener("all", 1), listener("news", 2)],
            makings: Makings::new(&Registry::new(1), 1).unwrap(),
        }
    }

    fn build(&self, before: Option<&Arc<Directory>>) -> Arc<Directory> {
        let authentication = Authentication::default();
        let sections = Sections {
            tenants: &self.tenants,
            default_tenant: self.default,
            authentication: &authentication,
            listeners: &self.listeners,
        };
        Directory::build(sections, before, &self.makings)
    }
}

fn name(arrival: Arrival) -> String {
    match arrival {
        Arrival::Known(tenant, _) => tenant.name().to_owned(),
        Arrival::MustLogIn => "?".to_owned(),
        Arrival::Nobody => "-".to_owned(),
    }
}

#[test]
fn listener_then_certificate_then_password_then_default() {
    let mut case = Case::new();
    let shop = ["other".to_owned(), "shop.internal".to_owned()];
    let directory = case.build(None);
    assert_eq!(name(directory.arrive("news", &shop)), "news");
    assert_eq!(name(directory.arrive("all", &shop)), "shop");
    assert_eq!(name(directory.arrive("all", &[])), "?");
    case.default = Some("news");
    assert_eq!(name(case.build(None).arrive("all", &[])), "news");
    case.default = None;
    case.tenants.get_mut("shop").unwrap().credentials.clear();
    assert_eq!(name(case.build(None).arrive("all", &[])), "-");
}

#[test]
fn connections_are_bounded_and_given_back() {
    let mut case = Case::new();
    case.tenants.get_mut("news").unwrap().limits.connections = Some(2);
    let directory = case.build(None);
    let enter = |directory: &Directory| match directory.arrive("news", &[]) {
        Arrival::Known(tenant, proof) => Member::enter(tenant, proof),
        Arrival::MustLogIn | Arrival::Nobody => panic!(),
    };
    let (_first, second) = (enter(&directory).unwrap(), enter(&directory).unwrap());
    assert_eq!(enter(&directory).unwrap_err(), Bound::Connections);
    drop(second);
    let _third = enter(&directory).unwrap();
    // A reload does not forget who is there.
    case.tenants.get_mut("news").unwrap().limits.connections = Some(3);
    let directory = case.build(Some(&directory));
    let _fourth = enter(&directory).unwrap();
    assert!(enter(&directory).is_err());
}

#[test]
fn a_reload_renews_what_is_still_so() {
    let mut case = Case::new();
    let before = case.build(None);
    assert!(Arc::ptr_eq(&before, &case.build(Some(&before))), "nothing changed");
    let member = |proof| Member::enter(Arc::clone(&before.tenants[1]), proof).unwrap();
    let by_certificate = member(Proof::Certificate("shop.internal".into()));
    let entry = before.vault.verify_now(b"shop", b"secret").unwrap().entry;
    let by_password = member(Proof::Credential { user: "shop".into(), entry });
    case.tenants
        .insert("a-first".into(), config::Tenant { listeners: vec!["all".into()], ..Default::default() });
    case.tenants.get_mut("shop").unwrap().certificates.clear();
    let after = case.build(Some(&before));
    assert!(after.renew(&by_certificate).is_none());
    let renewed = after.renew(&by_password).unwrap();
    assert_eq!((renewed.name(), renewed.number()), ("shop", 1));
    case.tenants.get_mut("shop").unwrap().credentials[0].password = Secret::new("changed");
    assert!(case.build(Some(&after)).renew(&by_password).is_none());
    case.tenants.remove("shop");
    assert!(case.build(Some(&after)).renew(&by_password).is_none());
}

#[test]
fn another_prefix_is_another_tenant() {
    let mut case = Case::new();
    let before = case.build(None);
    let member = Member::enter(Arc::clone(&before.tenants[0]), Proof::Listener("news".into())).unwrap();
    case.tenants.get_mut("news").unwrap().prefix = Some("other".into());
    assert!(case.build(Some(&before)).renew(&member).is_none());
}

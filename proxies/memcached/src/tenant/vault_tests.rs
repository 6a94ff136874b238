use argon2::{Argon2, Params, PasswordHasher};
use groove_common::config::Secret;

use super::super::config::Credential;
use super::*;

/// A hash that costs next to nothing.
fn hash(password: &str) -> String {
    let params = Params::new(8, 1, 1, None).unwrap();
    Argon2::from(params).hash_password_with_salt(password.as_bytes(), b"some salt").unwrap().to_string()
}

fn tenant(credentials: &[(&str, &str)]) -> Tenant {
    let credential = |(user, password): &(&str, &str)| Credential {
        user: (*user).into(),
        password: Secret::new(*password),
    };
    Tenant { credentials: credentials.iter().map(credential).collect(), ..Tenant::default() }
}

fn vault(keeper: &Arc<Keeper>, tenants: &[(&str, Tenant)]) -> Vault {
    let tenants = tenants.iter().map(|(name, tenant)| ((*name).to_owned(), tenant.clone())).collect();
    Vault::new(&tenants, keeper)
}

async fn whose(vault: &Vault, user: &str, password: &str) -> Option<usize> {
    vault.verify(None, user.as_bytes(), password.as_bytes()).await.map(|grant| grant.tenant)
}

#[tokio::test]
async fn credentials_choose_the_tenant() {
    let keeper = Keeper::new().unwrap();
    let vault = vault(
        &keeper,
        &[("a", tenant(&[("ann", "one"), ("ann", "two")])), ("b", tenant(&[("bob", &hash("three"))]))],
    );
    assert_eq!(whose(&vault, "ann", "one").await, Some(0));
    assert_eq!(whose(&vault, "ann", "two").await, Some(0), "an old and a new password");
    assert_eq!(whose(&vault, "bob", "three").await, Some(1));
    for (user, password) in [("ann", "three"), ("bob", "one"), ("annone", ""), ("an", "none"), ("", "")] {
        assert_eq!(whose(&vault, user, password).await, None, "{user} {password}");
    }
    // The hash itself is no password.
    assert_eq!(whose(&vault, "bob", &hash("three")).await, None);
}

#[tokio::test]
async fn what_was_right_is_remembered_and_no_password_is_kept() {
    let keeper = Keeper::new().unwrap();
    let vault = vault(&keeper, &[("b", tenant(&[("bob", &hash("three"))]))]);
    assert_eq!(whose(&vault, "bob", "three").await, Some(0));
    let permits = vault.keeper.verifications.clone().acquire_many_owned(2).await.unwrap();
    // No hash can be worked through now, and none has to be.
    assert_eq!(whose(&vault, "bob", "three").await, Some(0));
    drop(permits);
    assert!(!format!("{vault:?}").contains("three"));
}

#[tokio::test]
async fn a_guesser_waits_and_others_do_not() {
    let keeper = Keeper::new().unwrap();
    let vault = vault(&keeper, &[("a", tenant(&[("ann", "one"), ("eve", "x")]))]);
    (0..8).for_each(|_| vault.keeper.guesses.lock().failed(Guesser::new(None, Some(0)), Duration::ZERO));
    assert_eq!(whose(&vault, "eve", "x").await, Some(0), "another user does not wait");
    let ann = tokio::time::timeout(Duration::from_millis(200), whose(&vault, "ann", "one"));
    assert!(ann.await.is_err(), "even the right password waits");
}

#[tokio::test]
async fn a_reload_forgets_what_is_no_longer_configured() {
    let keeper = Keeper::new().unwrap();
    let hashed = hash("three");
    let before = vault(&keeper, &[("a", tenant(&[("ann", "one"), ("bob", &hashed)]))]);
    let ann = before.verify(None, b"ann", b"one").await.unwrap();
    let bob = before.verify(None, b"bob", b"three").await.unwrap();
    let after =
        vault(&keeper, &[("0", Tenant::default()), ("a", tenant(&[("ann", "two"), ("bob", &hashed)]))]);
    assert_eq!(after.still_grants(b"ann", &ann.entry), None);
    assert_eq!(after.still_grants(b"bob", &bob.entry).map(|grant| grant.tenant), Some(1));
    assert_eq!(after.still_grants(b"ann", &bob.entry), None);
    assert_eq!(whose(&after, "ann", "one").await, None);
}

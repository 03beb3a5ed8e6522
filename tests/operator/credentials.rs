//! How the operator comes to Redis: Secrets and TLS.

use std::fs;

use crate::operator::{
    AFTER_A_RETRY, NAME, SOON, Site, assert_kstatus, assert_left_clean, condition, data, migrated, spec,
};
use crate::support::certificates::SERVER_NAME;
use crate::support::redis_server::{Options, Standalone};
use crate::support::wait::eventually;
use crate::{condition_message, tenants_only};
use outpost_migrate_redis::model::phase::Phase;
use serde_json::json;

#[tokio::test]
async fn credentials_come_from_secrets_and_a_rotated_one_needs_no_restart() {
    let site = Site::new("secrets").await;
    let user = "migrator on >right-password ~* &* +@all";
    let options = Options { acl_users: vec![user.to_owned()], ..Options::password("of-the-default-user") };
    let redis = Standalone::start(options).await;
    let before = tenants_only(&redis.endpoint(), 50).await;
    let _operator = site.operator().await;
    let refs = json!({ "redis": {
        "usernameSecretRef": { "name": "redis-user", "key": "username" },
        "passwordSecretRef": { "name": "redis-password", "key": "password" },
    } });
    site.create(NAME, spec(&redis.endpoint(), refs)).await;

    let missing = site.wait_reason(NAME, SOON, "SecretMissing").await;
    assert_kstatus(&missing);
    assert!(condition_message(&site, "Ready").await.contains("redis-user"), "the message names the Secret");
    // The next one that is missing is named in its turn.
    site.secret("redis-user", "Opaque", &[("username", "migrator\n")]);
    site.wait(NAME, SOON, "the other Secret is named", |status| {
        condition(status, "Ready").is_some_and(|it| it.1 == "SecretMissing" && it.2.contains("redis-password"))
    })
    .await;
    site.secret("redis-password", "Opaque", &[("other", "x")]);
    site.wait(NAME, SOON, "the missing key is named", |status| {
        condition(status, "Ready").is_some_and(|it| it.1 == "SecretMissing" && it.2.contains("\"password\""))
    })
    .await;

    site.secret("redis-password", "Opaque", &[("password", "wrong-password")]);
    let refused = site.wait_reason(NAME, SOON, "AuthenticationFailed").await;
    assert_kstatus(&refused);
    assert!(condition(&refused, "Stalled").is_some());
    let message = condition_message(&site, "Ready").await;
    assert!(message.contains("redis-user") && message.contains("redis-password"), "it names the Secrets: {message}");
    let event = eventually(SOON, "an event", async || {
        site.events(NAME).into_iter().find(|event| event.1 == "AuthenticationFailed")
    })
    .await;
    assert_eq!(event.0, "Warning");

    site.secret("redis-password", "Opaque", &[("password", "right-password")]);
    site.wait_ready(NAME, AFTER_A_RETRY, Phase::Verified).await;
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "every source is at its target");
    assert_left_clean(&site, &redis.endpoint()).await;
}

#[tokio::test]
async fn tls_with_a_private_authority_a_client_certificate_and_a_server_name() {
    let site = Site::new("tls").await;
    let redis = Standalone::start(Options { require_client_certificate: true, ..Options::tls() }).await;
    let before = tenants_only(&redis.endpoint(), 50).await;
    let certificates = redis.access().tls.clone().expect("certificates");
    let read = |path| fs::read_to_string(path).expect("a certificate");
    let _operator = site.operator().await;
    site.secret("redis-ca", "Opaque", &[("ca.crt", &read(&certificates.ca))]);
    let client = [("tls.crt", read(&certificates.client_cert)), ("tls.key", read(&certificates.client_key))];
    let client = client.each_ref().map(|(key, value)| (*key, value.as_str()));
    let tls = |client: bool, server_name: &str| {
        let mut tls = json!({ "caSecretRef": { "name": "redis-ca", "key": "ca.crt" }, "serverName": server_name });
        if client {
            tls["clientCertSecretRef"] = json!({ "name": "redis-client" });
        }
        json!({ "redis": { "tls": tls } })
    };
    site.create("other-name", spec(&redis.endpoint(), tls(true, "other.example"))).await;
    site.wait_reason("other-name", SOON, "SecretMissing").await;
    site.secret("redis-client", "kubernetes.io/tls", &client);
    site.wait_reason("other-name", SOON, "RedisUnavailable").await;
    site.delete("other-name").await;
    data(&redis.endpoint()).await.assert_same(&before, "a server with another name gets nothing");

    site.create(NAME, spec(&redis.endpoint(), tls(true, SERVER_NAME))).await;
    site.wait_ready(NAME, SOON, Phase::Verified).await;
    data(&redis.endpoint()).await.assert_same(&migrated(&before), "every source is at its target");
    assert_left_clean(&site, &redis.endpoint()).await;
}

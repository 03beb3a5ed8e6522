//! Bad input: one clear line on standard error, the right exit code, nothing changed, within seconds.

use std::path::Path;
use std::time::Duration;

use crate::schema::load_with_canaries;
use crate::shell::{CANARY, CommandLine, Done};
use crate::support::certificates::Certificates;
use crate::support::ports::free_port;
use crate::support::process::{Signal, temp_dir};
use crate::support::redis_client::Endpoint;
use crate::support::redis_cluster::Cluster;
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;

/// Commands that reach Redis, in the form that needs no answer.
const COMMANDS: [&[&str]; 8] = [
    &["init", "--current"],
    &["list"],
    &["status"],
    &["plan"],
    &["apply", "--yes"],
    &["verify"],
    &["cleanup", "--yes"],
    &["unlock", "--yes"],
];

/// Longest that a refusal may take; measured in tenths of a second on an idle machine.
const SOON: Duration = Duration::from_secs(20);

/// Each command fails the same way.
async fn each_fails(cli: &CommandLine, code: i32, texts: &[&str]) {
    for command in COMMANDS {
        fails(cli.run(command).await, code, texts);
    }
}

#[track_caller]
fn fails(done: Done, code: i32, texts: &[&str]) {
    let done = done.expect(code).fails_with(texts);
    assert_eq!(done.stdout, "", "nothing but the error: {done}");
    assert!(done.took < SOON, "took {:?}: {done}", done.took);
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn at_port(port: u16) -> CommandLine {
    CommandLine::bare().flags(&["--redis-host", "127.0.0.1", "--redis-port", &port.to_string()])
}

#[tokio::test]
async fn nobody_listens() {
    let port = free_port();
    each_fails(&at_port(port), 3, &[&format!("127.0.0.1:{port}: Redis can't be reached; check host, port")]).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up() {
    let redis = Standalone::start(Options::default()).await;
    redis.signal(Signal::STOP);
    fails(CommandLine::at(&redis.endpoint()).run(&["list"]).await, 3, &[&redis.addr(), "did not answer in time"]);
    redis.signal(Signal::CONT);
}

#[tokio::test]
async fn a_name_that_does_not_resolve() {
    let cli = CommandLine::bare().flags(&["--redis-host", "no-such-host.invalid"]);
    each_fails(&cli, 3, &["no-such-host.invalid:6379", "can't be resolved"]).await;
}

#[tokio::test]
async fn a_wrong_password() {
    let redis = Standalone::start(Options::password(&format!("{CANARY}-right"))).await;
    let endpoint = redis.endpoint();
    load_with_canaries(&endpoint, 2).await;
    let before = snapshot(&endpoint).await;
    let cli = at_port(redis.port()).env("REDIS_PASSWORD", &format!("{CANARY}-wrong"));
    each_fails(&cli, 3, &[&redis.addr(), "refused the credentials"]).await;
    each_fails(&at_port(redis.port()), 3, &[&redis.addr(), "refused the credentials"]).await;
    let nobody = cli.flags(&["--redis-username", "nobody"]);
    each_fails(&nobody, 3, &[&redis.addr(), "refused the credentials"]).await;
    snapshot(&endpoint).await.assert_same(&before, "nothing was changed");
}

#[tokio::test]
async fn settings_that_mean_nothing() {
    let bare = CommandLine::bare;
    each_fails(&bare().flags(&["--redis-port", "abc"]), 2, &["--redis-port: \"abc\" is not a port"]).await;
    each_fails(&bare().env("REDIS_PORT", "70000"), 2, &["REDIS_PORT: \"70000\" is not a port"]).await;
    let linked = bare().env("REDIS_PORT", "tcp://10.0.0.1:6379");
    each_fails(&linked, 2, &["REDIS_PORT", "a Service named `redis`", "enableServiceLinks: false"]).await;
    each_fails(&bare().flags(&["--redis-database", "20"]), 2, &["--redis-database: \"20\" is not a database"]).await;
    let other_database = bare().flags(&["--redis-database", "3", "--redis-cluster"]);
    each_fails(&other_database, 2, &["--redis-database", "cluster mode", "only database 0"]).await;
    each_fails(&bare().env("REDIS_TLS_ENABLED", "maybe"), 2, &["REDIS_TLS_ENABLED: \"maybe\""]).await;
    each_fails(&bare().flags(&["--redis-username", "u"]), 2, &["a user name needs a password"]).await;
    let yaml = bare();
    yaml.write(".outpost.yaml", "redis:\n  port: abc\n");
    each_fails(&yaml, 2, &[".outpost.yaml: redis.port: \"abc\" is not a port"]).await;
    each_fails(&bare().flags(&["--config", "/no/such.yaml"]), 2, &["/no/such.yaml: can't be read"]).await;
    let no_file = bare().flags(&["--redis-password-file", "none"]);
    each_fails(&no_file, 2, &["--redis-password-file none: can't be read"]).await;
    each_fails(&bare().flags(&["--redis-tls-ca-file", "none"]), 2, &["--redis-tls-ca-file: TLS is off"]).await;
    let ca = bare().flags(&["--redis-tls", "--redis-tls-ca-file", "none"]);
    each_fails(&ca, 2, &["--redis-tls-ca-file none: can't be read"]).await;
}

#[tokio::test]
async fn cluster_mode_where_there_is_none_and_the_reverse() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    load_with_canaries(&endpoint, 2).await;
    let before = snapshot(&endpoint).await;
    let cluster_flag = CommandLine::at(&endpoint).flags(&["--redis-cluster"]);
    each_fails(&cluster_flag, 2, &[&redis.addr(), "cluster mode", "--redis-cluster"]).await;
    snapshot(&endpoint).await.assert_same(&before, "nothing was changed");

    let cluster = Cluster::start(3, 0, Options::default()).await;
    let endpoint = cluster.endpoint();
    load_with_canaries(&endpoint, 2).await;
    let before = snapshot(&endpoint).await;
    let no_flag = CommandLine::at(&Endpoint { cluster: false, ..endpoint.clone() });
    each_fails(&no_flag, 2, &["cluster mode", "--redis-cluster"]).await;
    snapshot(&endpoint).await.assert_same(&before, "nothing was changed");
}

/// A server that speaks both: without TLS for the harness, with TLS at the port that is answered.
async fn both_ways(certificates: &Certificates) -> (Standalone, u16) {
    let port = free_port();
    let extra = vec![
        format!("tls-port {port}"),
        "tls-auth-clients optional".to_owned(),
        format!("tls-ca-cert-file {}", certificates.ca.display()),
        format!("tls-cert-file {}", certificates.server_cert.display()),
        format!("tls-key-file {}", certificates.server_key.display()),
    ];
    (Standalone::start(Options { extra, ..Options::default() }).await, port)
}

#[tokio::test]
async fn a_plain_connection_to_a_server_with_tls_and_the_reverse() {
    let folder = temp_dir("certificates-", None);
    let (plain, tls_port) = both_ways(&Certificates::make(folder.path())).await;
    fails(at_port(tls_port).run(&["list"]).await, 3, &[&tls_port.to_string(), "TLS"]);
    let reverse = at_port(plain.port()).flags(&["--redis-tls", "--redis-tls-insecure-skip-verify"]);
    fails(reverse.run(&["list"]).await, 3, &[&plain.addr(), "TLS"]);
}

#[tokio::test]
async fn certificates_that_can_not_be_trusted() {
    let (folder, other) = (temp_dir("certificates-", None), temp_dir("certificates-", None));
    let mut certificates = Certificates::make(folder.path());
    let unknown = Certificates::make(other.path());
    let (redis, port) = both_ways(&certificates).await;
    let tls = |port: u16, ca: &Path| at_port(port).flags(&["--redis-tls", "--redis-tls-ca-file", path(ca)]);
    tls(port, &certificates.ca).run(&["list"]).await.expect(0);
    load_with_canaries(&redis.endpoint(), 2).await;
    let before = snapshot(&redis.endpoint()).await;
    each_fails(&tls(port, &unknown.ca), 3, &["comes from no trusted authority", "CA"]).await;
    let public = at_port(port).flags(&["--redis-tls"]);
    fails(public.run(&["list"]).await, 3, &["comes from no trusted authority"]);
    snapshot(&redis.endpoint()).await.assert_same(&before, "nothing was changed");

    certificates.server_cert = certificates.expired_server_certificate();
    let (expired, port) = both_ways(&certificates).await;
    load_with_canaries(&expired.endpoint(), 2).await;
    let before = snapshot(&expired.endpoint()).await;
    each_fails(&tls(port, &certificates.ca), 3, &["certificate has expired", "renew it"]).await;
    snapshot(&expired.endpoint()).await.assert_same(&before, "nothing was changed");
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate() {
    let redis = Standalone::start(Options { require_client_certificate: true, ..Options::tls() }).await;
    let ours = redis.access().tls.clone().unwrap();
    let without = at_port(redis.port()).flags(&["--redis-tls", "--redis-tls-ca-file", path(&ours.ca)]);
    fails(without.run(&["list"]).await, 3, &["client certificate"]);
    let half = without.flags(&["--redis-tls-cert-file", path(&ours.client_cert)]);
    fails(half.run(&["list"]).await, 2, &["--redis-tls-cert-file: needs --redis-tls-key-file"]);
}

#[tokio::test]
async fn a_migration_that_nobody_knows() {
    let redis = Standalone::start(Options::default()).await;
    let endpoint = redis.endpoint();
    load_with_canaries(&endpoint, 2).await;
    let before = snapshot(&endpoint).await;
    let cli = CommandLine::at(&endpoint);
    for command in [
        &["plan", "009_none"][..],
        &["apply", "009_none", "--yes"],
        &["apply", "--rerun", "009_none", "--yes"],
        &["verify", "009_none"],
        &["cleanup", "009_none", "--yes"],
        &["init", "--require", "001_hash_tags,009_none"],
    ] {
        let known = "the known ones are 001_hash_tags, 002_timestamps, 003_entity";
        fails(cli.run(command).await, 2, &["there is no migration \"009_none\"", known]);
    }
    snapshot(&endpoint).await.assert_same(&before, "nothing was changed");
}

#[tokio::test]
async fn words_that_nobody_knows() {
    let cli = CommandLine::bare();
    for (command, first_line) in [
        (&["list", "--frobnicate"][..], "error: unexpected argument '--frobnicate' found"),
        (&["frobnicate"], "error: unrecognized subcommand 'frobnicate'"),
        (&["apply", "--keys-per-second", "0"], "error: invalid value '0' for '--keys-per-second <NUMBER>'"),
        (&["verify", "--sample", "x"], "error: invalid value 'x' for '--sample <NUMBER>'"),
        (&["cleanup", "--diverged", "burn"], "error: invalid value 'burn' for '--diverged <DIVERGED>'"),
        (&["apply", "--all", "001_hash_tags"], "error: the argument '--all' cannot be used with '[MIGRATION]'"),
        (&["init", "--wait", "soon"], "error: invalid value 'soon' for '--wait <DURATION>'"),
        (&["list", "--key-layout", "x"], "error: invalid value 'x' for '--key-layout <LAYOUT>'"),
    ] {
        let done = cli.run(command).await.expect(2);
        assert!(done.stdout.is_empty() && done.stderr.starts_with(first_line), "{first_line:?}: {done}");
    }
    fails(cli.run(&["operator", "--redis-host", "redis"]).await, 2, &["--redis-host", "each resource's spec"]);
    fails(cli.run(&["--redis-port", "1", "operator"]).await, 2, &["--redis-port", "each resource's spec"]);
}

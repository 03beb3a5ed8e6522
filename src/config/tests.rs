//! All sources together: each against each other one, the order of files, the rules between
//! settings, and that no password gets out.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;

use clap::Parser;
use rstest::rstest;
use secrecy::ExposeSecret as _;
use tempfile::TempDir;

use super::*;
use crate::migrations::KeyLayout;

const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n";
const KEY: &str = "-----BEGIN PRIVATE KEY-----\ncanary-key\n-----END PRIVATE KEY-----\n";

/// A machine with two folders, an environment, and what is typed there.
struct Machine {
    current: TempDir,
    root: TempDir,
    words: Vec<String>,
    variables: BTreeMap<String, OsString>,
}

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    flags: ConfigurationFlags,
}

impl Machine {
    fn new() -> Self {
        let folder = || tempfile::tempdir().unwrap();
        Self { current: folder(), root: folder(), words: vec!["tool".into()], variables: BTreeMap::new() }
    }

    fn types(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().map(|word| (*word).to_owned()));
        self
    }

    fn exports(mut self, variable: &str, text: &str) -> Self {
        self.variables.insert(variable.to_owned(), text.into());
        self
    }

    fn has(self, name: &str, text: &str) -> Self {
        let Folders { current, root } = self.folders();
        let path = name.strip_prefix('/').map_or_else(|| current.join(name), |below| root.join(below));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn folders(&self) -> Folders {
        Folders { current: self.current.path().to_owned(), root: self.root.path().to_owned() }
    }

    fn reads(&self) -> Result<Configuration, ConfigurationError> {
        let flags = Line::try_parse_from(&self.words).unwrap().flags;
        let environment = Environment::read(|variable| self.variables.get(variable).cloned())?;
        Configuration::read(&flags, &environment, &self.folders())
    }

    fn refusal(&self) -> String {
        let error = self.reads().unwrap_err();
        assert!(!error.to_string().contains('\n'), "{error}");
        error.to_string()
    }
}

/// Where a text can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Flag,
    Environment,
    Dotenv,
    Yaml,
}

/// A setting that every source has: flag, variable, path in YAML, name in the table, default.
#[derive(Debug, Clone, Copy)]
struct Common(&'static str, &'static str, &'static str, &'static str, &'static str);

const HOST: Common = Common("--redis-host", "REDIS_HOST", "redis.host", "redis host", "redis");
const PORT: Common = Common("--redis-port", "REDIS_PORT", "redis.port", "redis port", "6379");
const USERNAME: Common = Common("--redis-username", "REDIS_USERNAME", "redis.username", "redis username", "(none)");
const PASSWORD: Common = Common("--redis-password", "REDIS_PASSWORD", "redis.password", "redis password", "(none)");
const DATABASE: Common = Common("--redis-database", "REDIS_DATABASE", "redis.database", "redis database", "0");
const CLUSTER: Common =
    Common("--redis-cluster", "REDIS_CLUSTER_ENABLED", "redis.cluster_enabled", "redis cluster", "false");
const TLS: Common = Common("--redis-tls", "REDIS_TLS_ENABLED", "redis.tls_enabled", "redis tls", "false");
const DEPLOYMENT_ID: Common = Common("--deployment-id", "DEPLOYMENT_ID", "deployment_id", "deployment id", "(none)");

impl Common {
    fn give(self, machine: Machine, from: Origin, text: &str) -> Machine {
        match from {
            Origin::Flag => machine.types(&[&format!("{}={text}", self.0)]),
            Origin::Environment => machine.exports(self.1, text),
            Origin::Dotenv => machine.has(".env", &format!("{}={text}\n", self.1)),
            Origin::Yaml => machine.has(".outpost.yaml", &in_yaml(self.2, text)),
        }
    }

    fn source(self, from: Origin) -> Source {
        match from {
            Origin::Flag => Source::Flag(self.0),
            Origin::Environment => Source::Environment(self.1),
            Origin::Dotenv => Source::File { file: ".env".into(), place: self.1 },
            Origin::Yaml => Source::File { file: ".outpost.yaml".into(), place: self.2 },
        }
    }

    /// The value in force, from the configuration itself.
    fn value(self, configuration: &Configuration) -> String {
        let Configuration { endpoint, scope, .. } = configuration;
        let none = || "(none)".to_owned();
        match self.1 {
            "REDIS_HOST" => endpoint.host.clone(),
            "REDIS_PORT" => endpoint.port.to_string(),
            "REDIS_USERNAME" => endpoint.username.clone().unwrap_or_else(none),
            "REDIS_PASSWORD" => endpoint.password.as_ref().map_or_else(none, |text| text.expose_secret().to_owned()),
            "REDIS_DATABASE" => endpoint.database.to_string(),
            "REDIS_CLUSTER_ENABLED" => endpoint.cluster.to_string(),
            "REDIS_TLS_ENABLED" => endpoint.tls.is_some().to_string(),
            "DEPLOYMENT_ID" => scope.deployment_id.clone().unwrap_or_else(none),
            other => panic!("{other}"),
        }
    }

    fn effective(self, configuration: &Configuration) -> Effective {
        configuration.provenance.effective().iter().find(|row| row.name == self.3).unwrap().clone()
    }
}

fn in_yaml(path: &str, text: &str) -> String {
    match path.split_once('.') {
        Some((section, name)) => format!("{section}:\n  {name}: {text}\n"),
        None => format!("{path}: {text}\n"),
    }
}

/// A machine on which a user name does not stand alone. The password file is not among the sources compared.
fn machine_for(setting: Common) -> Machine {
    let machine = Machine::new();
    if setting.1 != "REDIS_USERNAME" {
        return machine;
    }
    machine.has("password", "secret").types(&["--redis-password-file=password"])
}

#[rstest]
fn each_source_is_heard(
    #[values(HOST, PORT, USERNAME, PASSWORD, DATABASE, CLUSTER, TLS, DEPLOYMENT_ID)] setting: Common,
    #[values(Origin::Flag, Origin::Environment, Origin::Dotenv, Origin::Yaml)] from: Origin,
) {
    let text = match setting.4 {
        "false" => "true",
        _ => "7",
    };
    let configuration = setting.give(machine_for(setting), from, text).reads().unwrap();
    assert_eq!(setting.value(&configuration), text);
    assert_eq!(setting.effective(&configuration).source, setting.source(from));
}

#[rstest]
fn the_higher_source_wins(
    #[values(HOST, PORT, USERNAME, PASSWORD, DATABASE, CLUSTER, TLS, DEPLOYMENT_ID)] setting: Common,
    #[values(
        (Origin::Flag, Origin::Environment),
        (Origin::Flag, Origin::Dotenv),
        (Origin::Flag, Origin::Yaml),
        (Origin::Environment, Origin::Dotenv),
        (Origin::Environment, Origin::Yaml),
        (Origin::Dotenv, Origin::Yaml)
    )]
    (higher, lower): (Origin, Origin),
) {
    let pairs = match setting.4 {
        "false" => [("true", "false"), ("false", "true")],
        _ => [("7", "8"), ("8", "7")],
    };
    for (wins, loses) in pairs {
        let machine = setting.give(machine_for(setting), lower, loses);
        let configuration = setting.give(machine, higher, wins).reads().unwrap();
        assert_eq!(setting.value(&configuration), wins);
        assert_eq!(setting.effective(&configuration).source, setting.source(higher));
    }
}

#[rstest]
fn an_empty_text_is_none(
    #[values(HOST, PORT, USERNAME, PASSWORD, DATABASE, CLUSTER, TLS, DEPLOYMENT_ID)] setting: Common,
    #[values(Origin::Flag, Origin::Environment, Origin::Dotenv, Origin::Yaml)] from: Origin,
) {
    let empty = if from == Origin::Yaml { "''" } else { "" };
    let configuration = setting.give(Machine::new(), from, empty).reads().unwrap();
    assert_eq!(setting.value(&configuration), setting.4);
    assert_eq!(setting.effective(&configuration).source, Source::Default);
}

#[rstest]
fn an_empty_text_hides_no_lower_one(
    #[values((Origin::Flag, Origin::Environment), (Origin::Flag, Origin::Yaml), (Origin::Environment, Origin::Dotenv))]
    (higher, lower): (Origin, Origin),
) {
    let machine = HOST.give(HOST.give(Machine::new(), lower, "lower"), higher, "");
    assert_eq!(machine.reads().unwrap().endpoint.host, "lower");
}

#[test]
fn without_anything_the_defaults_hold() {
    let configuration = Machine::new().reads().unwrap();
    for setting in [HOST, PORT, USERNAME, PASSWORD, DATABASE, CLUSTER, TLS, DEPLOYMENT_ID] {
        assert_eq!(setting.value(&configuration), setting.4, "{setting:?}");
        let Effective { shown, source, .. } = setting.effective(&configuration);
        assert_eq!((shown.as_str(), source), (setting.4, Source::Default), "{setting:?}");
    }
    assert_eq!(configuration.scope, Scope::default());
    assert_eq!(configuration.conflict_policy, ConflictPolicy::Fail);
}

#[test]
fn layout_and_policy_are_typed() {
    let machine = Machine::new().types(&["--key-layout=tenant-tag", "--conflict-policy=prefer-target"]);
    let configuration = machine.reads().unwrap();
    assert_eq!(configuration.scope.parameters.key_layout, KeyLayout::TenantTag);
    assert_eq!(configuration.conflict_policy, ConflictPolicy::PreferTarget);
}

mod files {
    use super::*;

    const SEARCHED: [&str; 8] = [
        ".env",
        ".outpost.yaml",
        "config/outpost.yaml",
        "config/outpost/config.yaml",
        "config/outpost/.env",
        "/config/outpost.yaml",
        "/config/outpost/config.yaml",
        "/config/outpost/.env",
    ];

    fn with_host(machine: Machine, file: &str, host: &str) -> Machine {
        let text = if file.ends_with("/.env") || file == ".env" {
            format!("REDIS_HOST={host}")
        } else {
            in_yaml("redis.host", host)
        };
        machine.has(file, &text)
    }

    #[test]
    fn the_first_found_counts_and_no_other() {
        for (first, name) in SEARCHED.into_iter().enumerate() {
            let below = SEARCHED.into_iter().enumerate().skip(first + 1);
            let machine = below.fold(Machine::new(), |machine, (index, name)| {
                with_host(machine, name, &format!("h{index}")).exports("REDIS_PORT", "7")
            });
            let configuration = with_host(machine, name, "first").reads().unwrap();
            assert_eq!(configuration.endpoint.host, "first", "{name}");
            let file = &configuration.provenance.effective()[0];
            assert_eq!((file.name, file.shown.as_str()), ("configuration file", name));
            assert_eq!(file.source, Source::FirstFound);
        }
    }

    #[test]
    fn a_first_file_without_settings_still_is_the_one() {
        let machine = with_host(Machine::new().has(".env", "NODE_ENV=production"), ".outpost.yaml", "other");
        assert_eq!(machine.reads().unwrap().endpoint.host, "redis");
    }

    #[test]
    fn a_folder_is_no_file() {
        let machine = with_host(Machine::new(), ".outpost.yaml", "here");
        fs::create_dir(machine.current.path().join(".env")).unwrap();
        fs::write(machine.current.path().join("config"), "no folder").unwrap();
        assert_eq!(machine.reads().unwrap().endpoint.host, "here");
    }

    #[rstest]
    #[case("mine.yaml")]
    #[case("deep/mine.yml")]
    #[case("/etc/mine")]
    #[case("production.env")]
    #[case("PRODUCTION.ENV")]
    fn a_named_file_is_the_only_one(#[case] name: &str) {
        let text = if name.to_lowercase().ends_with(".env") { "REDIS_HOST=mine" } else { "redis: { host: mine }" };
        for machine in [Machine::new().types(&["--config", name]), Machine::new().exports("CONFIG", name)] {
            let machine = machine.has(name, text).has(".env", "REDIS_PORT=7");
            let endpoint = machine.reads().unwrap().endpoint;
            assert_eq!((endpoint.host.as_str(), endpoint.port), ("mine", 6379));
        }
    }

    #[test]
    fn the_flag_names_it_before_the_environment() {
        let machine = Machine::new().exports("CONFIG", "missing.yaml").types(&["-c", "mine.yaml"]);
        let configuration = with_host(machine, "mine.yaml", "mine").reads().unwrap();
        assert_eq!(configuration.provenance.effective()[0].source, Source::Flag("--config"));
        assert_eq!(configuration.endpoint.host, "mine");
    }

    #[test]
    fn a_named_file_must_be_there() {
        let rest = "can't be read: No such file or directory (os error 2). Make it readable, or name another file with \
                    --config";
        let machine = Machine::new().types(&["--config", "missing.yaml"]).has(".env", "REDIS_HOST=other");
        assert_eq!(machine.refusal(), format!("--config missing.yaml: {rest}"));
        assert_eq!(Machine::new().exports("CONFIG", "/a/b").refusal(), format!("CONFIG /a/b: {rest}"));
    }

    #[test]
    fn a_named_folder_is_no_file() {
        let refusal = Machine::new().types(&["--config", "/"]).refusal();
        assert!(refusal.starts_with("--config /: can't be read: Is a directory"), "{refusal}");
    }

    #[test]
    fn a_file_that_is_no_text_is_not_passed_over() {
        let machine = Machine::new();
        fs::write(machine.current.path().join(".env"), b"REDIS_PASSWORD=\xff").unwrap();
        assert_eq!(
            machine.refusal(),
            ".env: can't be read: it is not UTF-8 text. Make it readable, or name another file with --config"
        );
    }

    #[test]
    fn a_byte_order_mark_is_no_text() {
        assert_eq!(Machine::new().has(".env", "\u{feff}REDIS_HOST=a").reads().unwrap().endpoint.host, "a");
        assert_eq!(Machine::new().has(".outpost.yaml", "\u{feff}redis: {host: a}").reads().unwrap().endpoint.host, "a");
    }
}

mod refusals {
    use super::*;

    #[rstest]
    #[case(Origin::Flag, r#"--redis-port: "abc" is not a port (1 to 65535)"#)]
    #[case(Origin::Environment, r#"REDIS_PORT: "abc" is not a port (1 to 65535)"#)]
    #[case(Origin::Dotenv, r#".env: REDIS_PORT: "abc" is not a port (1 to 65535)"#)]
    #[case(Origin::Yaml, r#".outpost.yaml: redis.port: "abc" is not a port (1 to 65535)"#)]
    fn the_place_is_named(#[case] from: Origin, #[case] message: &str) {
        assert_eq!(PORT.give(Machine::new(), from, "abc").refusal(), message);
    }

    #[rstest]
    #[case(DATABASE, "16", r#"REDIS_DATABASE: "16" is not a database (0 to 15)"#)]
    #[case(CLUSTER, "maybe", r#"REDIS_CLUSTER_ENABLED: "maybe" is neither true nor false (nor 1, 0, yes, no)"#)]
    #[case(TLS, "on", r#"REDIS_TLS_ENABLED: "on" is neither true nor false (nor 1, 0, yes, no)"#)]
    #[case(
        HOST,
        "redis://:canary@redis",
        "REDIS_HOST: is neither a host name nor an IP address: write it without scheme, user, brackets and port, and \
         give the port as --redis-port or REDIS_PORT"
    )]
    #[case(
        DEPLOYMENT_ID,
        "a{b}",
        "DEPLOYMENT_ID: a deployment id may hold neither braces nor control characters: write it as Outpost's \
         DEPLOYMENT_ID has it"
    )]
    #[case(
        PORT,
        "tcp://10.0.0.1:6379",
        "REDIS_PORT: \"tcp://10.0.0.1:6379\" is not a port (1 to 65535): a Service named `redis` puts REDIS_PORT like \
         this into every pod of its namespace; set `enableServiceLinks: false` in the pod's spec, or give --redis-port"
    )]
    fn a_value_is_judged(#[case] setting: Common, #[case] text: &str, #[case] message: &str) {
        assert_eq!(setting.give(Machine::new(), Origin::Environment, text).refusal(), message);
    }

    #[test]
    fn a_wrong_text_below_a_right_one_does_no_harm() {
        let machine = Machine::new().exports("REDIS_PORT", "tcp://10.0.0.1:6379").types(&["--redis-port", "7"]);
        assert_eq!(machine.reads().unwrap().endpoint.port, 7);
    }

    #[test]
    fn a_long_deployment_id() {
        let machine = Machine::new().types(&["--deployment-id", &"a".repeat(64)]);
        assert_eq!(
            machine.refusal(),
            "--deployment-id: a deployment id may have at most 63 characters: write it as Outpost's DEPLOYMENT_ID has it"
        );
    }

    #[test]
    fn a_variable_that_is_no_text() {
        let mut machine = Machine::new();
        machine.variables.insert("REDIS_PASSWORD".into(), OsString::from_vec(vec![0xff]));
        assert_eq!(machine.refusal(), "REDIS_PASSWORD: is not UTF-8 text: write it as UTF-8, or unset it");
    }

    #[test]
    fn a_cluster_has_one_database() {
        let machine = Machine::new().has(".outpost.yaml", "redis: { database: 3 }").types(&["--redis-cluster"]);
        assert_eq!(
            machine.refusal(),
            ".outpost.yaml: redis.database: database 3 can't be had in cluster mode (--redis-cluster): Redis Cluster \
             has only database 0. Write 0, or turn cluster mode off"
        );
        let machine = machine.types(&["--redis-database", "0"]);
        assert!(machine.reads().unwrap().endpoint.cluster);
    }

    #[test]
    fn two_passwords() {
        let machine = Machine::new().types(&["--redis-password", "canary", "--redis-password-file", "missing"]);
        assert_eq!(
            machine.refusal(),
            "--redis-password and --redis-password-file are both given: leave one of them out"
        );
    }

    #[test]
    fn a_username_alone() {
        assert_eq!(
            USERNAME.give(Machine::new(), Origin::Yaml, "outpost").refusal(),
            ".outpost.yaml: redis.username: a user name needs a password, since Redis is never asked to log in with a \
             user name alone: give --redis-password-file or REDIS_PASSWORD, or leave the user name out"
        );
    }

    #[rstest]
    #[case("--redis-tls-ca-file=ca.pem", "--redis-tls-ca-file")]
    #[case("--redis-tls-cert-file=c.pem", "--redis-tls-cert-file")]
    #[case("--redis-tls-key-file=k.pem", "--redis-tls-key-file")]
    #[case("--redis-tls-insecure-skip-verify", "--redis-tls-insecure-skip-verify")]
    fn tls_flags_need_tls(#[case] word: &str, #[case] flag: &str) {
        let machine = Machine::new().types(&[word]);
        assert_eq!(machine.refusal(), format!("{flag}: TLS is off (default): add --redis-tls, or leave {flag} out"));
        let machine = machine.exports("REDIS_TLS_ENABLED", "no");
        let by = "environment REDIS_TLS_ENABLED";
        assert_eq!(machine.refusal(), format!("{flag}: TLS is off ({by}): add --redis-tls, or leave {flag} out"));
    }

    #[rstest]
    #[case("--redis-tls-cert-file", "--redis-tls-key-file")]
    #[case("--redis-tls-key-file", "--redis-tls-cert-file")]
    fn certificate_and_key_go_together(#[case] given: &str, #[case] missing: &str) {
        let machine = Machine::new().types(&["--redis-tls", given, "a.pem"]);
        assert_eq!(
            machine.refusal(),
            format!(
                "{given}: needs {missing} beside it: a certificate identifies us only together with its private key"
            )
        );
    }

    #[rstest]
    #[case("ca", KEY, "holds no certificate in PEM form: name a file with -----BEGIN CERTIFICATE-----")]
    #[case("cert", KEY, "holds no certificate in PEM form: name a file with -----BEGIN CERTIFICATE-----")]
    #[case(
        "key",
        CERTIFICATE,
        "holds no private key in PEM form: name a file with -----BEGIN PRIVATE KEY-----, not encrypted"
    )]
    #[case(
        "key",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----",
        "holds no private key in PEM form: name a file with -----BEGIN PRIVATE KEY-----, not encrypted"
    )]
    fn files_hold_what_they_are_named_for(#[case] kind: &str, #[case] text: &str, #[case] problem: &str) {
        let machine = with_tls(Machine::new()).has(&format!("{kind}.pem"), text);
        assert_eq!(machine.refusal(), format!("--redis-tls-{kind}-file {kind}.pem: {problem}"));
    }

    #[rstest]
    #[case("--redis-password-file", &[])]
    #[case("--redis-tls-ca-file", &["--redis-tls"])]
    fn files_that_flags_name_must_be_there(#[case] flag: &str, #[case] beside: &[&str]) {
        let refusal = Machine::new().types(beside).types(&[flag, "missing"]).refusal();
        let cause = "No such file or directory (os error 2)";
        assert_eq!(refusal, format!("{flag} missing: can't be read: {cause}. Make it readable, or name another file"));
    }

    #[rstest]
    #[case("")]
    #[case("\r\n")]
    fn an_empty_password_file(#[case] text: &str) {
        let machine = Machine::new().has("p", text).types(&["--redis-password-file", "p"]);
        assert_eq!(
            machine.refusal(),
            "--redis-password-file p: holds no password: write it there, or leave the flag out"
        );
    }
}

fn with_tls(machine: Machine) -> Machine {
    let machine = machine.has("ca.pem", CERTIFICATE).has("cert.pem", CERTIFICATE).has("key.pem", KEY);
    machine
        .types(&["--redis-tls", "--redis-tls-ca-file=ca.pem"])
        .types(&["--redis-tls-cert-file=cert.pem", "--redis-tls-key-file=key.pem"])
}

#[test]
fn tls_is_what_the_files_hold() {
    let tls = with_tls(Machine::new()).reads().unwrap().endpoint.tls.unwrap();
    let client = tls.client.unwrap();
    assert_eq!(tls.ca_pem.as_deref(), Some(CERTIFICATE.as_bytes()));
    assert_eq!((client.certificate_pem.as_slice(), client.key_pem.expose_secret()), (CERTIFICATE.as_bytes(), KEY));
    assert!(!tls.insecure_skip_verify && tls.server_name.is_none());

    let tls = Machine::new().types(&["--redis-tls", "--redis-tls-insecure-skip-verify"]).reads().unwrap().endpoint.tls;
    assert!(tls.is_some_and(|tls| tls.insecure_skip_verify && tls.ca_pem.is_none() && tls.client.is_none()));
}

#[test]
fn a_switch_turned_off_needs_no_tls() {
    let machine = Machine::new().types(&["--redis-tls-insecure-skip-verify=false"]);
    assert!(machine.reads().unwrap().endpoint.tls.is_none());
}

#[rstest]
#[case("canary", "canary")]
#[case("canary\n", "canary")]
#[case("canary\r\n\n", "canary")]
#[case(" canary ", " canary ")]
fn a_password_file_stands_above_environment_and_file(#[case] text: &str, #[case] password: &str) {
    let machine = Machine::new()
        .has("secret/password", text)
        .has(".outpost.yaml", "redis: { username: u, password: lowest }")
        .exports("REDIS_PASSWORD", "lower")
        .types(&["--redis-password-file", "secret/password"]);
    let configuration = machine.reads().unwrap();
    assert_eq!(PASSWORD.value(&configuration), password);
    let row = PASSWORD.effective(&configuration);
    assert_eq!((row.shown.as_str(), row.source), ("***", Source::Flag("--redis-password-file")));
}

#[test]
fn the_table_says_what_holds_and_why() {
    let machine = with_tls(Machine::new())
        .has(".outpost.yaml", "redis: { host: 10.0.0.1, username: outpost, password: canary, cluster_enabled: YES }")
        .exports("REDIS_PORT", "6380")
        .exports("DEPLOYMENT_ID", "dp")
        .types(&["--conflict-policy=prefer-source"]);
    let expected = "\
configuration file              .outpost.yaml  first found
redis host                      10.0.0.1       .outpost.yaml: redis.host
redis port                      6380           environment REDIS_PORT
redis username                  outpost        .outpost.yaml: redis.username
redis password                  ***            .outpost.yaml: redis.password
redis database                  0              default
redis cluster                   true           .outpost.yaml: redis.cluster_enabled
redis tls                       true           flag --redis-tls
redis tls ca file               ca.pem         flag --redis-tls-ca-file
redis tls cert file             cert.pem       flag --redis-tls-cert-file
redis tls key file              key.pem        flag --redis-tls-key-file
redis tls insecure skip verify  false          default
deployment id                   dp             environment DEPLOYMENT_ID
key layout                      outpost        default
conflict policy                 prefer-source  flag --conflict-policy
min replicas                    1 if any       default";
    assert_eq!(machine.reads().unwrap().provenance.to_string(), expected);
}

#[rstest]
fn no_password_gets_out(
    #[values(Origin::Flag, Origin::Environment, Origin::Dotenv, Origin::Yaml)] from: Origin,
    #[values(None, Some(PORT), Some(DATABASE), Some(HOST), Some(DEPLOYMENT_ID), Some(TLS))] wrong: Option<Common>,
) {
    const CANARY: &str = "canary-7f3a";
    // A file holds one setting here, so what is wrong beside the password comes from elsewhere.
    let machine = PASSWORD.give(Machine::new(), from, CANARY);
    let machine = match wrong {
        None => machine,
        Some(setting) => setting.give(machine, Origin::Environment, &format!("redis://:{CANARY}@{{redis}}:6379")),
    };
    let flags = Line::try_parse_from(&machine.words).unwrap().flags;
    let environment = Environment::read(|variable| machine.variables.get(variable).cloned()).unwrap();
    let read = Configuration::read(&flags, &environment, &machine.folders());
    let shown = match &read {
        Ok(configuration) => format!("{configuration:?} {}", configuration.provenance),
        Err(error) => format!("{error:?} {error}"),
    };
    assert_eq!(read.is_err(), wrong.is_some());
    for text in [shown, format!("{flags:?}"), format!("{environment:?}")] {
        assert!(!text.contains("canary"), "{text}");
    }
}

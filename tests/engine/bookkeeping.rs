//! Sums that must come out: what a run copied and what it finds afterwards, what each command counts, what later
//! migrations were told, and what an earlier tool left behind.

use std::time::Duration;

use outpost_migrate_redis::engine::Stop;
use outpost_migrate_redis::engine::control::Control;
use outpost_migrate_redis::keyspace::conditional::Outcome::{Changed, Done, Gone};
use outpost_migrate_redis::migrations::KeyLayout;
use outpost_migrate_redis::model::key::RedisKey;
use outpost_migrate_redis::model::policy::MinReplicas;
use rstest::rstest;
use serde_json::{Value as Json, json};

use crate::shell::CommandLine;
use crate::support::engine::{Bench, Expected, Reins, assert_settled, hset, run_on_owner};
use crate::support::generator::{now_ms, unmigrated};
use crate::support::load::load;
use crate::support::proxy::Proxy;
use crate::support::redis::Redis;
use crate::support::redis_client::{Endpoint, slot};
use crate::support::redis_cluster::{Cluster, wait_replicated};
use crate::support::redis_server::{Options, Standalone};
use crate::support::snapshot::snapshot;
use crate::support::value::{Entry, Value};
use crate::support::wait::eventually_true;

async fn exists(redis: &Endpoint, key: &str) -> bool {
    snapshot(redis).await.contains_key(key.as_bytes())
}

async fn delete(redis: &Endpoint, key: &str) {
    run_on_owner(redis, key.as_bytes(), redis::cmd("DEL").arg(key)).await;
}

/// A tenant with one destination, and its summary.
fn tenant(id: &str) -> Vec<Entry> {
    vec![
        Entry::new(format!("tenant:{id}"), Value::hash([("id", id), ("created_at", "2025-01-19T22:17:29.5Z")])),
        Entry::new(format!("tenant:{id}:destinations"), Value::hash([("d", "{\"id\":\"d\"}")])),
        Entry::new(format!("tenant:{id}:destination:d"), Value::hash([("id", "d"), ("type", "webhook")])),
    ]
}

async fn load_tenants(redis: &Endpoint, layout: KeyLayout) -> Expected {
    let entries = (0..100).flat_map(|number| tenant(&format!("t{number}"))).collect();
    Expected::load_entries(redis, entries, layout).await
}

/// The old version of the application deletes the last destination of a tenant: Redis deletes an empty hash.
async fn delete_last_destination(redis: &Endpoint, id: &str) {
    let summary = format!("tenant:{id}:destinations");
    run_on_owner(redis, summary.as_bytes(), redis::cmd("HDEL").arg(&summary).arg("d")).await;
    assert!(!exists(redis, &summary).await, "the fault did not hit: the summary is still there");
}

#[track_caller]
fn assert_one_is_missed(stop: &Stop) {
    assert!(matches!(stop, Stop::SourcesGone { entries: 1, .. }), "{stop:?}");
}

#[rstest]
#[case::one_server(false, KeyLayout::Outpost)]
#[case::a_cluster(true, KeyLayout::Outpost)]
#[case::the_documented_layout(true, KeyLayout::TenantTag)]
#[tokio::test]
async fn a_deletion_behind_the_copy_gets_no_mark(#[case] cluster: bool, #[case] layout: KeyLayout) {
    let server = Redis::either(cluster, 0).await;
    let bench = Bench::with_layout(&server.endpoint(), layout);
    let redis = &bench.redis;
    let expected = load_tenants(redis, layout).await;
    // It was in current form before, and has nothing to do with the run.
    let before = match layout {
        KeyLayout::Outpost => "tenant:{new}:tenant",
        KeyLayout::TenantTag => "{tenant:new}",
    };
    hset(redis, before.as_bytes(), "id", "new").await;
    let target_of = |id: &str| match layout {
        KeyLayout::Outpost => format!("tenant:{{{id}}}:destinations"),
        KeyLayout::TenantTag => format!("{{tenant:{id}}}:destinations"),
    };

    let reins = Reins::paced(200);
    let deleting = async {
        let mut copied = None;
        eventually_true(Duration::from_secs(60), "some summary is copied", async || {
            let there = snapshot(redis).await;
            let ids = (0..100).map(|number| format!("t{number}"));
            copied = ids.into_iter().find(|id| there.contains_key(target_of(id).as_bytes()));
            copied.is_some()
        })
        .await;
        expected.assert_halfway(redis).await;
        let id = copied.expect("a summary");
        delete_last_destination(redis, &id).await;
        id
    };
    let (migrated, id) = tokio::join!(bench.migrate(&reins.control), deleting);
    let stop = migrated.map(|_| ()).expect_err("a target stands for what was deleted");
    assert_one_is_missed(&stop);
    let Stop::SourcesGone { sample, .. } = &stop else { panic!("{stop:?}") };
    let named: Vec<String> = sample.iter().map(ToString::to_string).collect();
    assert!(named.contains(&target_of(&id)), "{named:?}");
    bench.assert_no_mark().await;
    assert!(exists(redis, &target_of(&id)).await, "nothing is removed for it");

    // Another try is no way around it.
    let stop = bench.migrate(&Control::unattended()).await.map(|_| ()).expect_err("it still stands");
    assert_one_is_missed(&stop);

    delete(redis, &target_of(&id)).await;
    bench.migrate(&Control::unattended()).await.expect("a mark");
    assert_settled(&bench.snapshot().await.1);
}

/// Nobody was at work when it was deleted: the run that is taken up began before.
#[tokio::test]
async fn a_deletion_between_two_attempts_gets_no_mark() {
    let server = Redis::either(false, 0).await;
    let bench = Bench::new(&server.endpoint());
    let redis = &bench.redis;
    let expected = load_tenants(redis, KeyLayout::Outpost).await;
    let reins = Reins::paced(200);
    let stopping = async {
        expected.wait_halfway(redis).await;
        reins.stop.cancel();
    };
    let (migrated, ()) = tokio::join!(bench.migrate(&reins.control), stopping);
    assert_eq!(migrated.map(|_| ()), Err(Stop::Interrupted));
    let there = snapshot(redis).await;
    let id = (0..100)
        .map(|number| format!("t{number}"))
        .find(|id| there.contains_key(format!("tenant:{{{id}}}:destinations").as_bytes()))
        .expect("a summary that was copied");
    delete_last_destination(redis, &id).await;

    let stop = bench.migrate(&Control::unattended()).await.map(|_| ()).expect_err("a target without a source");
    assert_one_is_missed(&stop);
    bench.assert_no_mark().await;
}

/// An entry that somebody adds by hand looks like one whose source was deleted: a person knows better.
#[tokio::test]
async fn entries_without_a_source_are_accepted_by_name() {
    let server = Redis::either(false, 0).await;
    let bench = Bench::new(&server.endpoint());
    let redis = &bench.redis;
    let expected = load_tenants(redis, KeyLayout::Outpost).await;
    let held = bench.hold().await;
    let (plan, run) = held.begin(&Control::unattended()).await.expect("a plan");
    held.apply(&Control::unattended(), &plan, &run).await.expect("a copy");
    hset(redis, b"tenant:{by_hand}:tenant", "id", "by_hand").await;

    let stop = held.prove(&Control::unattended(), &plan, &run).await.map(|_| ()).expect_err("one without a source");
    held.release().await;
    assert_one_is_missed(&stop);
    let said = stop.to_string();
    assert!(said.contains("--accept-finding SourcesGone") && said.contains("spec.acceptFindings"), "{said}");
    bench.assert_no_mark().await;

    let unaccepted = bench.plan().await.expect("a plan").hash;
    let cli = CommandLine::at(redis).flags(&["--output", "json"]);
    let refused = cli.run(&["apply", "--yes"]).await.expect(1);
    assert!(refused.stderr.contains("--accept-finding SourcesGone"), "{}", refused.stderr);
    let applied = cli.run(&["apply", "--yes", "--accept-finding", "SourcesGone"]).await.expect(0).event("applied");
    let found = &applied["findings"][0];
    assert_eq!((&found["code"], &found["accepted"]), (&json!("SourcesGone"), &json!(true)), "{applied}");
    assert_settled(&bench.snapshot().await.1);
    let (data, _) = bench.snapshot().await;
    assert!(data.contains_key(&b"tenant:{by_hand}:tenant"[..]), "nothing is removed for it");
    let others = data.filter(|key, _| key != b"tenant:{by_hand}:tenant");
    expected.migrated().assert_same(&others, "migrated");
    assert_ne!(bench.accepting(&["SourcesGone"]).plan().await.expect("a plan").hash, unaccepted, "hashed");
}

/// What ends by itself behind the copy ends at its target too: the sums come out, without another pass.
#[rstest]
#[case::one_server(false)]
#[case::a_cluster(true)]
#[tokio::test]
async fn entries_that_end_behind_the_copy_are_not_missed(#[case] cluster: bool) {
    let server = Redis::either(cluster, 0).await;
    let bench = Bench::new(&server.endpoint());
    let redis = &bench.redis;
    let mut entries: Vec<Entry> = (0..50).flat_map(|number| tenant(&format!("t{number}"))).collect();
    let end = now_ms() + 3_000;
    for number in 0..200 {
        let value = Value::hash([("deleted_at", "2026-11-01T00:00:00Z")]);
        entries.push(Entry::new(format!("tenant:gone_{number}"), value).expiring(end + number * 5));
    }
    let expected = Expected::load_entries(redis, entries, KeyLayout::Outpost).await;
    let control = Control::unattended();
    let held = bench.hold().await;
    let (plan, run) = held.begin(&control).await.expect("a plan");
    let applied = held.apply(&control, &plan, &run).await.expect("a copy");
    assert_eq!(applied.copied, expected.sources(), "the fault did not hit: something ended before it was copied");
    let proving = held.prove(&Reins::paced(60).control, &plan, &run).await;
    assert!(now_ms() > end, "the fault did not hit: nothing ended behind the copy");
    held.mark(proving.expect("a proof")).await.expect("a mark");
    held.release().await;
}

/// Keys in current form may be unmigrated too, and copying and cleaning up never look at those.
#[tokio::test]
async fn every_command_counts_unmigrated_keys_alike() {
    let server = Redis::either(false, 0).await;
    let redis = server.endpoint();
    let odd = [
        Entry::new("tenant:{odd}:tenant", Value::string("x")),
        Entry::new("tenant:{odd}:destination:d", Value::hash([("id", "another")])),
    ];
    let expected = unmigrated().len() + odd.len();
    Expected::load(&redis, 20).await;
    load(&redis, odd).await;
    let cli = CommandLine::at(&redis).flags(&["--output", "json"]);

    let planned = cli.run(&["plan"]).await.expect(0).json();
    let by_reason = planned["plan"]["unmigrated"]["by_reason"].as_object().expect("counts by reason").clone();
    let planned: u64 = by_reason.values().filter_map(Json::as_u64).sum();
    let before = cli.run(&["verify"]).await.expect(1).event("verified")["unmigrated"].clone();
    let applied = cli.run(&["apply", "--yes"]).await.expect(0).event("applied")["unmigrated"].clone();
    let verified = cli.run(&["verify"]).await.expect(0).event("verified")["unmigrated"].clone();
    let forced = cli.run(&["cleanup", "--yes", "--force"]).await.expect(0).event("cleaned_up")["unmigrated"].clone();
    let cleaned = cli.run(&["cleanup", "--yes"]).await.expect(0).event("cleaned_up")["unmigrated"].clone();
    assert_eq!(
        [json!(planned), before, applied, verified, forced, cleaned],
        [json!(expected), json!(expected), json!(expected), json!(expected), Json::Null, json!(expected)],
        "by plan, verify, apply, verify, cleanup without looking first, cleanup"
    );
    CommandLine::at(&redis).run(&["cleanup", "--yes"]).await.expect(0).says(&format!("{expected} no rule maps them"));
}

/// Lets a replica hear nothing any more, until it is promoted.
async fn cut_off(cluster: &Cluster, replica: usize) {
    let mut connection = cluster.connection(replica).await;
    // A primary without a password refuses who sends one.
    let set = redis::cmd("CONFIG").arg("SET").arg("masterauth").arg("nobody").take();
    set.exec_async(&mut connection).await.expect("CONFIG SET");
    let kill = redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("master").take();
    kill.exec_async(&mut connection).await.expect("CLIENT KILL");
    eventually_true(Duration::from_secs(30), "the replica is cut off", async || {
        let info = cluster.node(replica).info("replication").await.expect("INFO");
        info("master_link_status").as_deref() == Some("down")
    })
    .await;
}

const LATER: &str = "outpost:migration:002_timestamps";

/// A cluster on which 001 and 002 are applied, and 001 is to be done again for one source whose target is gone.
struct Rerun {
    cluster: Cluster,
    bench: Bench,
    /// Owner of the mark of 002, and its replica.
    primary: usize,
    replica: usize,
    /// What is to be copied; neither it nor its source lies on that primary.
    target: String,
}

impl Rerun {
    async fn prepare(min_replicas: MinReplicas) -> Self {
        let cluster = Cluster::start(3, 1, Options::default()).await;
        let mut bench = Bench::new(&cluster.endpoint()).min_replicas(min_replicas);
        bench.life = Duration::from_secs(60);
        load_tenants(&bench.redis, KeyLayout::Outpost).await;
        bench.migrate(&Control::unattended()).await.expect("a mark of 001");
        let second = Bench::new(&bench.redis).migration("002_timestamps");
        second.migrate(&Control::unattended()).await.expect("a mark of 002");

        delete(&bench.redis, "outpost:migration:001_hash_tags").await;
        let primary = cluster.owner(slot(LATER.as_bytes())).await;
        let mut elsewhere = None;
        for number in 0..100 {
            let (source, target) = (format!("tenant:t{number}"), format!("tenant:{{t{number}}}:tenant"));
            let owners = [cluster.owner(slot(source.as_bytes())).await, cluster.owner(slot(target.as_bytes())).await];
            if !owners.contains(&primary) {
                elsewhere = Some(target);
                break;
            }
        }
        let target = elsewhere.expect("a tenant on other primaries");
        delete(&bench.redis, &target).await;
        wait_replicated(&mut cluster.connection(primary).await, 1).await;
        let replica = cluster.replicas_of(primary).await[0];
        Self { cluster, bench, primary, replica, target }
    }

    async fn is_stamped(&self) -> bool {
        snapshot(&self.bench.redis).await[LATER.as_bytes()].value.field("verified_at").is_some()
    }
}

/// A failover brings back what its replica never heard of: here the stamp that was taken off a later mark.
#[tokio::test]
async fn a_later_stamp_that_comes_back_behind_a_copy_is_taken_off_again() {
    let rerun = Rerun::prepare(MinReplicas::Exactly(0)).await;
    let control = Control::unattended();
    assert!(rerun.is_stamped().await);
    let held = rerun.bench.hold().await;
    let (plan, run) = held.begin(&control).await.expect("a plan");
    wait_replicated(&mut rerun.cluster.connection(rerun.primary).await, 1).await;
    cut_off(&rerun.cluster, rerun.replica).await;
    let applied = held.apply(&control, &plan, &run).await.expect("a copy");
    assert_eq!(applied.copied, 1);
    assert!(!rerun.is_stamped().await, "the copy has not gone through 002");
    rerun.cluster.failover(rerun.replica).await;
    assert!(rerun.is_stamped().await, "the fault did not hit: the stamp did not come back");

    let proof = held.prove(&control, &plan, &run).await.expect("a proof");
    held.mark(proof).await.expect("a mark");
    held.release().await;
    assert!(exists(&rerun.bench.redis, &rerun.target).await);
    assert!(!rerun.is_stamped().await, "002 would never be applied to what was copied");
}

/// Were the worker killed before its own mark, nobody would read later marks again.
#[tokio::test]
async fn nothing_is_copied_before_replicas_know_that_later_marks_lost_their_stamps() {
    let rerun = Rerun::prepare(MinReplicas::OneIfAny).await;
    let control = Control::unattended();
    let held = rerun.bench.hold().await;
    let (plan, run) = held.begin(&control).await.expect("a plan");
    cut_off(&rerun.cluster, rerun.replica).await;
    let applied = held.apply(&control, &plan, &run).await.map(|_| ());
    assert!(matches!(applied, Err(Stop::ReplicasMissing(_))), "{applied:?}");
    held.release().await;
    assert!(!exists(&rerun.bench.redis, &rerun.target).await, "a copy that 002 may never hear of");
}

/// What the earlier tool leaves of a tombstone: a copy that never ends, and a mark. The application has changed one
/// other target since. Returns when the tombstone's original ends.
async fn as_the_earlier_tool_left_it(redis: &Endpoint) -> i64 {
    let end = now_ms() + 3_600_000;
    let deleted = || Value::hash([("deleted_at", "2026-11-01T00:00:00Z")]);
    let named = |name: &str| Value::hash([("id", "edited"), ("created_at", "1"), ("name", name)]);
    let copied = tenant("same").into_iter().flat_map(|entry| {
        let name = String::from_utf8(entry.key.clone()).expect("a name");
        let target = match name.strip_prefix("tenant:same") {
            Some("") => "tenant:{same}:tenant".to_owned(),
            rest => format!("tenant:{{same}}{}", rest.expect("a key of the tenant")),
        };
        [Entry { key: target.into_bytes(), ..entry.clone() }, entry]
    });
    let others = [
        Entry::new("tenant:gone", deleted()).expiring(end),
        Entry::new("tenant:{gone}:tenant", deleted()),
        Entry::new("tenant:edited", named("before")),
        Entry::new("tenant:{edited}:tenant", named("after")),
        Entry::new("outpost:migration:001_hash_tags", Value::hash([("status", "applied")])),
    ];
    load(redis, copied.chain(others)).await;
    end
}

async fn expiry_of(redis: &Endpoint, key: &str) -> Option<i64> {
    snapshot(redis).await[key.as_bytes()].expiry_ms
}

#[rstest]
#[case::one_server(false)]
#[case::a_cluster(true)]
#[tokio::test]
async fn an_expiry_that_the_earlier_tool_dropped_is_put_back_when_asked_for(#[case] cluster: bool) {
    let server = Redis::either(cluster, 0).await;
    let redis = server.endpoint();
    let end = as_the_earlier_tool_left_it(&redis).await;
    let before = snapshot(&redis).await;
    let cli = CommandLine::at(&redis);
    cli.run(&["plan"]).await.expect(0).says("1 targets equal their sources but for an expiry").says("LostExpiry");
    cli.run(&["verify"]).await.expect(1).says("2 differ (1 of them only in an expiry that was dropped)");
    before.assert_same(&snapshot(&redis).await, "nothing was asked for yet");

    // Who answers yes to every question has not read what was found.
    cli.run(&["apply", "--yes"]).await.expect(1).says("--accept-finding LostExpiry");
    before.assert_same(&snapshot(&redis).await, "it was not accepted by name");

    let json = CommandLine::at(&redis).flags(&["--output", "json"]);
    let proven = json.run(&["apply", "--yes", "--accept-finding", "LostExpiry"]).await.expect(0);
    let expected = json!({"event": "proven", "migration": "001_hash_tags", "equal": 4, "different": 1,
        "lost_expiry": 0, "expiries_put_back": 1, "expiries_unmended": 0});
    assert_eq!(proven.event("proven"), expected);
    assert_eq!(expiry_of(&redis, "tenant:{gone}:tenant").await, Some(end), "it ends with its original");
    let rest =
        |key: &[u8]| !key.starts_with(b"tenant:{gone}") && !key.starts_with(b"outpost:") && !key.starts_with(b"{");
    let after = snapshot(&redis).await;
    before.filter(|key, _| rest(key)).assert_same(&after.filter(|key, _| rest(key)), "all else");
    assert!(after[&b"outpost:migration:001_hash_tags"[..]].value.field("verified_at").is_some(), "the mark is stamped");
}

/// One tombstone is as the plan saw it; the other ends, with its copy, while it is in our hands.
#[tokio::test]
async fn only_an_expiry_that_was_put_back_is_told_as_such() {
    let server = Standalone::start(Options::default()).await;
    let redis = server.endpoint();
    let end = as_the_earlier_tool_left_it(&redis).await;
    let deleted = || Value::hash([("deleted_at", "2026-11-02T00:00:00Z")]);
    let late = [Entry::new("tenant:late", deleted()).expiring(end), Entry::new("tenant:{late}:tenant", deleted())];
    load(&redis, late).await;
    let proxy = Proxy::start(redis.port).await;
    let expiry = end.to_string();
    proxy.stop_at(0, move |request| request.windows(expiry.len()).any(|part| part == expiry.as_bytes()));

    let cli = CommandLine::at(&proxy.endpoint()).flags(&["--output", "json"]);
    let ending = async {
        proxy.wait_caught().await;
        delete(&redis, "tenant:late").await;
        delete(&redis, "tenant:{late}:tenant").await;
        proxy.let_go();
    };
    let (proven, ()) = tokio::join!(cli.run(&["apply", "--yes", "--accept-finding", "LostExpiry"]), ending);

    let proven = proven.expect(0).event("proven");
    assert_eq!(expiry_of(&redis, "tenant:{gone}:tenant").await, Some(end), "it ends with its original");
    let told = |name: &str| proven[name].as_u64();
    assert_eq!(told("expiries_put_back"), Some(1), "{proven}");
    assert_eq!((told("expiries_unmended"), told("lost_expiry")), (Some(1), Some(0)), "{proven}");
}

/// Where entries are to be copied behind the other tool's mark, too.
#[tokio::test]
async fn what_a_copy_puts_back_is_told() {
    let server = Standalone::start(Options::default()).await;
    let redis = server.endpoint();
    as_the_earlier_tool_left_it(&redis).await;
    load(&redis, tenant("left")).await;

    let cli = CommandLine::at(&redis).flags(&["--output", "json"]);
    let applied = cli.run(&["apply", "--yes", "--accept-finding", "LostExpiry"]).await.expect(0).event("applied");

    let told = |name: &str| applied[name].as_u64();
    assert_eq!((told("copied"), told("expiries_put_back"), told("expiries_unmended")), (Some(3), Some(1), Some(0)));
}

#[tokio::test]
async fn the_gate_says_what_differs_behind_a_mark_that_it_proves() {
    let server = Redis::either(false, 0).await;
    let redis = server.endpoint();
    let end = as_the_earlier_tool_left_it(&redis).await;
    let cli = CommandLine::at(&redis);
    let gate = ["init", "--current", "--require", "001_hash_tags"];
    let said = cli.run(&gate).await.expect(0).says("2 targets differ from their sources, 1 of them only in an expiry");
    assert_eq!(expiry_of(&redis, "tenant:{gone}:tenant").await, None, "a gate changes no entry");
    cli.run(&gate).await.expect(0).does_not_say("differ");

    // What it says to do, done.
    let words = said.stdout.split('`').nth(1).expect("a command").to_owned();
    let words: Vec<&str> = words.split_whitespace().skip(1).chain(["--yes"]).collect();
    cli.run(&words).await.expect(0).says("1 target got their expiry back");
    assert_eq!(expiry_of(&redis, "tenant:{gone}:tenant").await, Some(end));
    cli.run(&["verify", "001_hash_tags"]).await.expect(1).says("1 differ").does_not_say("dropped");
}

/// The application may have written between the comparison and the write.
#[rstest]
#[case::one_server(false)]
#[case::a_cluster(true)]
#[tokio::test]
async fn an_expiry_is_given_only_to_what_was_compared(#[case] cluster: bool) {
    let server = Redis::either(cluster, 0).await;
    let bench = Bench::new(&server.endpoint());
    let redis = &bench.redis;
    let end = now_ms() + 3_600_000;
    let hash = || Value::hash([("deleted_at", "t")]);
    let list = || Value::List(vec![b"x".to_vec()]);
    load(redis, ["same", "changed", "gone"].map(|key| Entry::new(key, hash()))).await;
    load(redis, ["list", "changed-list"].map(|key| Entry::new(key, list()))).await;
    load(redis, [Entry::new("expires", hash())]).await;
    let held = bench.hold().await;
    let names = ["same", "changed", "gone", "list", "changed-list", "expires"];
    let keys = names.map(RedisKey::from);
    let read = held.writer.entries(&keys).await.expect("entries");
    let expected: Vec<_> =
        keys.into_iter().zip(read).map(|(key, entry)| (key, entry.expect("an entry"), end)).collect();
    hset(redis, b"changed", "deleted_at", "later").await;
    delete(redis, "gone").await;
    run_on_owner(redis, b"changed-list", redis::cmd("RPUSH").arg("changed-list").arg("y")).await;
    run_on_owner(redis, b"expires", redis::cmd("PEXPIREAT").arg("expires").arg(end + 1)).await;

    let outcomes = held.writer.expire_if_unchanged(&expected).await;
    held.release().await;
    assert_eq!(outcomes, [Done, Changed, Gone, Done, Changed, Changed].map(Ok));
    for (name, at) in [("same", Some(end)), ("changed", None), ("list", Some(end)), ("changed-list", None)] {
        assert_eq!(expiry_of(redis, name).await, at, "{name}");
    }
    assert_eq!(expiry_of(redis, "expires").await, Some(end + 1));
}

//! A seeded generator of keyspaces as Outpost before v0.6 wrote them.
//!
//! Each tenant depends on the seed and its own number only, so a bigger keyspace contains a smaller
//! one of the same seed and time.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

use super::value::{Bytes, Entry, Value};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Of a thousand tenants or destinations, how many are tombstones.
const TOMBSTONES: u64 = 30;

/// Every fiftieth tenant has an awkward id.
const AWKWARD_EVERY: usize = 50;

/// What to generate.
#[derive(Debug, Clone, Copy)]
pub struct Generator {
    /// Decides everything but the expiries.
    pub seed: u64,
    /// How many tenants.
    pub tenants: usize,
    /// Tombstones are up to six days old at this Unix time.
    pub now_ms: i64,
}

impl Generator {
    /// A keyspace as of now.
    pub fn new(seed: u64, tenants: usize) -> Self {
        Self { seed, tenants, now_ms: now_ms() }
    }

    /// All entries of all tenants.
    pub fn entries(self) -> impl Iterator<Item = Entry> {
        (0..self.tenants).flat_map(move |number| self.tenant(number))
    }

    /// The id of the tenant with this number; some are awkward.
    pub fn tenant_id(&self, number: usize) -> String {
        if number % AWKWARD_EVERY == 7 {
            let templates = ["org:acme:N", "a*bN", "b{raceN", "sp ace N", "ünïcødeN", "q?N[x]", "a}bN"];
            return templates[number / AWKWARD_EVERY % templates.len()].replace('N', &number.to_string());
        }
        match number % 3 {
            0 => format!("{:08x}-0000-4000-8000-{number:012}", Random::new(self.seed, number).below(1 << 32)),
            _ => format!("tenant_{number}"),
        }
    }

    /// All entries of one tenant.
    pub fn tenant(&self, number: usize) -> Vec<Entry> {
        let id = self.tenant_id(number);
        let mut random = Random::new(self.seed, number);
        // Not used by the id alone.
        random.next();
        let created =
            Timestamp::from_second(1_735_689_600 + random.below(20_000_000).cast_signed()).expect("a time in 2025");
        let is_deleted = random.below(1000) < TOMBSTONES;
        let tenant_key = format!("tenant:{id}");
        let mut entries = vec![if is_deleted {
            self.tombstone(&tenant_key, &mut random)
        } else {
            Entry::new(&tenant_key, Value::hash([("id", id.as_str()), ("created_at", &created.to_string())]))
        }];
        let mut summary: Vec<(String, String)> = Vec::new();
        for _ in 0..random.below(6) {
            let destination = format!("des_{:08x}", random.below(1 << 32));
            let key = format!("{tenant_key}:destination:{destination}");
            if is_deleted || random.below(1000) < TOMBSTONES {
                entries.push(self.tombstone(&key, &mut random));
            } else {
                let (value, line) = live_destination(&destination, created, &mut random);
                entries.push(Entry::new(&key, value));
                summary.push((destination, line));
            }
        }
        // Redis keeps no empty hash.
        if !summary.is_empty() {
            entries.push(Entry::new(format!("{tenant_key}:destinations"), Value::hash(summary)));
        }
        entries
    }

    /// What is left of a deleted tenant or destination, for seven days.
    fn tombstone(&self, key: &str, random: &mut Random) -> Entry {
        let age = random.below(6 * DAY_MS.unsigned_abs()).cast_signed();
        // Odd, so that an expiry rounded to seconds is noticed.
        let deleted = (self.now_ms - age) | 1;
        let deleted_at = Timestamp::from_millisecond(deleted).expect("a recent time").to_string();
        Entry::new(key, Value::hash([("deleted_at", deleted_at)])).expiring(deleted + 7 * DAY_MS)
    }
}

/// A destination's hash and its line in the summary.
fn live_destination(id: &str, created: Timestamp, random: &mut Random) -> (Value, String) {
    let kind = ["webhook", "aws_sqs", "rabbitmq"][random.index(3)];
    let (topics, topic_list) =
        [("*", r#"["*"]"#), ("user.created,order.paid", r#"["user.created","order.paid"]"#)][random.index(2)];
    let is_disabled = random.below(10) == 0;
    let config = format!(r#"{{"url":"https://example.com/{id}"}}"#);
    let size = 40 + random.index(41);
    let mut fields: Vec<(&str, Bytes)> = vec![
        ("id", id.into()),
        ("type", kind.into()),
        ("topics", topics.into()),
        ("config", config.into()),
        ("credentials", random.bytes(size)),
        ("created_at", created.to_string().into()),
    ];
    if is_disabled {
        fields.push(("disabled_at", created.to_string().into()));
    }
    let line = format!(r#"{{"id":"{id}","type":"{kind}","topics":{topic_list},"disabled":{is_disabled}}}"#);
    (Value::hash(fields), line)
}

/// Keys of no interest to any migration, of several types, some of them close by name.
pub fn noise(now_ms: i64) -> Vec<Entry> {
    let bytes = |text: &str| text.as_bytes().to_vec();
    vec![
        Entry::new("tenancy:1", Value::hash([("id", "1")])),
        Entry::new("tenant", Value::string("no colon")),
        Entry::new("xtenant:1", Value::hash([("id", "1")])),
        Entry::new("session:{tenant:1}", Value::string("s")).expiring(now_ms + DAY_MS + 1),
        Entry::new("other", Value::string([0_u8, 255, 13, 10])),
        Entry::new("queue", Value::List(["b", "a", "b"].map(bytes).into())),
        Entry::new("members", Value::Set(["x", "y"].map(bytes).into())),
        Entry::new(
            "scores",
            Value::SortedSet([(b"x".to_vec(), b"1.5".to_vec()), (b"y".to_vec(), b"-2".to_vec())].into()),
        ),
        Entry::new("outpost:installation", Value::string("id")),
    ]
}

/// A key under a legacy prefix that no rule maps, and why.
#[derive(Debug, Clone)]
pub struct Unmigrated {
    /// The entry; it must stay as it is.
    pub entry: Entry,
    /// What is wrong with it, for people.
    pub why: &'static str,
}

/// Keys under legacy prefixes that no rule maps.
pub fn unmigrated() -> Vec<Unmigrated> {
    let one = |key: &str, value: Value, why| Unmigrated { entry: Entry::new(key, value), why };
    vec![
        one("tenant:wrongtype", Value::string("x"), "a string where a tenant's hash belongs"),
        one("tenant:wronglist", Value::List(vec![b"x".to_vec()]), "a list where a tenant's hash belongs"),
        one("tenant:wrongsummary:destinations", Value::string("x"), "a string where a summary's hash belongs"),
        one("tenant:a:b:junk", Value::hash([("x", "1")]), "a hash without id that is no tombstone"),
        one("tenant:mismatch", Value::hash([("id", "someone-else")]), "its id contradicts its key"),
        one("tenant:mismatch:destination:des_1", Value::hash([("id", "des_2")]), "its id contradicts its key"),
        one("destination_summary:t:d", Value::hash([("id", "d")]), "a documented name that Outpost never wrote"),
    ]
}

/// The Unix time in milliseconds.
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    i64::try_from(since.as_millis()).expect("a clock before the year 292 million")
}

/// `SplitMix64`: tiny, and the same for ever, unlike a library's default generator.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    fn new(seed: u64, number: usize) -> Self {
        let mut mixed = Self(seed ^ (number as u64).wrapping_mul(0xD6E8_FEB8_6659_FD93));
        Self(mixed.next())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).expect("below a usize")
    }

    fn bytes(&mut self, count: usize) -> Bytes {
        (0..count).map(|_| self.next().to_le_bytes()[0]).collect()
    }
}

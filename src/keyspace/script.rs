//! The Lua scripts that make a read or a conditional write atomic.
//!
//! Owns their text. Each touches only the keys that it is given: `KEYS`, all of one slot, or, where many are read
//! at once, `ARGV`, all of one server.

use std::sync::{LazyLock, OnceLock};

/// Items that one command may bring to a script that does several things to each: a third of a millisecond's work.
const ITEMS: usize = 32;

/// As many for a script that only looks at each.
const LIGHT_ITEMS: usize = 100;

/// A script and its digest. A connection loads it when it is first used there.
pub(super) struct Script {
    text: String,
    digest: String,
    items: usize,
    unbound: OnceLock<Box<Script>>,
}

impl Script {
    fn new(text: &str) -> Self {
        let digest = redis::Script::new(text).get_hash().to_owned();
        Self { text: text.to_owned(), digest, items: ITEMS, unbound: OnceLock::new() }
    }

    /// A script that only looks at each item.
    fn light(text: &str) -> Self {
        Self { items: LIGHT_ITEMS, ..Self::new(text) }
    }

    /// Items that one command may bring, where it brings many.
    pub(super) fn items(&self) -> usize {
        self.items
    }

    pub(super) fn sha1(&self) -> &str {
        &self.digest
    }

    /// The same for a server at its memory limit: since Redis 7.0 a script may say that it is to run there too. Earlier
    /// servers do not understand its first line.
    pub(super) fn at_memory_limit(&self) -> &Self {
        self.unbound.get_or_init(|| {
            Box::new(Self { items: self.items, ..Self::new(&format!("#!lua flags=allow-oom\n{}", self.text)) })
        })
    }

    pub(super) fn load_command(&self) -> redis::Cmd {
        redis::cmd("SCRIPT").arg("LOAD").arg(&self.text).take()
    }
}

/// `expiry(key)`: as `PEXPIRETIME`. Redis 6.2 has none (nor tells a script its version); there the clock is read
/// before and after what is left, since it goes on inside a script, until both looks fall in one millisecond.
const EXPIRY: &str = "
    local tells_expiry = redis.REDIS_VERSION_NUM
    local function expiry(key)
      if tells_expiry then return redis.call('PEXPIRETIME', key) end
      local function now()
        local time = redis.call('TIME')
        return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
      end
      local left, before, after
      repeat
        before = now()
        left = redis.call('PTTL', key)
        after = now()
      until before == after or left < 0
      if left < 0 then return left end
      return before + left
    end";

/// `field_ends(key, list, first)`: for each second item of the list, which are names of fields, when that field
/// ends (-1 never), or an empty table if none of them does. Fields end since Redis 7.4 and Valkey 9; Valkey tells
/// scripts 7.2.4 as its Redis version.
const FIELD_ENDS: &str = "
    local fields_may_end = redis.REDIS_VERSION_NUM and redis.REDIS_VERSION_NUM >= 0x070400
    if redis.VALKEY_VERSION_NUM then fields_may_end = redis.VALKEY_VERSION_NUM >= 0x090000 end
    local function field_ends(key, list, first)
      if not fields_may_end then return {} end
      local ends, any = {}, false
      for start = first, #list, 2000 do
        local names = {}
        for at = start, math.min(start + 1999, #list), 2 do names[#names + 1] = list[at] end
        for _, at in ipairs(redis.call('HPEXPIRETIME', key, 'FIELDS', #names, unpack(names))) do
          ends[#ends + 1] = at
          if at >= 0 then any = true end
        end
      end
      if any then return ends end
      return {}
    end";

/// `KEYS` key → payload and absolute expiry, or false.
pub(super) static READ_PAYLOAD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{EXPIRY}
         local payload = redis.call('DUMP', KEYS[1])
         if not payload then return false end
         return {{payload, expiry(KEYS[1])}}"
    ))
});

/// Answers of the scripts below end with the key at which they hold this many bytes: the rest is asked for again.
const ENOUGH_BYTES: usize = 256 * 1024;

/// `ARGV` keys → payload and absolute expiry of each, or false.
pub(super) static READ_PAYLOADS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{EXPIRY}
         local answers, bytes = {{}}, 0
         for at = 1, #ARGV do
           local payload = redis.call('DUMP', ARGV[at])
           answers[at] = payload and {{payload, expiry(ARGV[at])}}
           if payload then bytes = bytes + #payload end
           if bytes > {ENOUGH_BYTES} then break end
         end
         return answers"
    ))
});

/// `ARGV` number of fields, their names, then keys → the values of the fields of each hash, or 0 for another type.
pub(super) static READ_FIELDS: LazyLock<Script> = LazyLock::new(|| {
    Script::light(
        "local answers, last = {}, ARGV[1] + 1
         for at = last + 1, #ARGV do
           local values = redis.pcall('HMGET', ARGV[at], unpack(ARGV, 2, last))
           if values.err then
             if string.sub(values.err, 1, 9) ~= 'WRONGTYPE' then return redis.error_reply(values.err) end
             values = 0
           end
           answers[at - last] = values
         end
         return answers",
    )
});

/// `ARGV` keys → 1 for each that exists, 0 for others.
pub(super) static WHICH_EXIST: LazyLock<Script> = LazyLock::new(|| {
    Script::light(
        "local answers = {}
         for at = 1, #ARGV do answers[at] = redis.call('EXISTS', ARGV[at]) end
         return answers",
    )
});

/// `ARGV` keys → the remaining life of each in milliseconds, as `PTTL` says it.
pub(super) static REMAINING_LIVES: LazyLock<Script> = LazyLock::new(|| {
    Script::light(
        "local answers = {}
         for at = 1, #ARGV do answers[at] = redis.call('PTTL', ARGV[at]) end
         return answers",
    )
});

/// `ARGV` keys → bytes that each takes; 0 for a missing one.
pub(super) static MEMORY_USAGES: LazyLock<Script> = LazyLock::new(|| {
    Script::light(
        "local answers = {}
         for at = 1, #ARGV do answers[at] = redis.call('MEMORY', 'USAGE', ARGV[at]) or 0 end
         return answers",
    )
});

/// A script's answer where it could not tell.
pub(super) const ASK: i64 = -3;

/// What the scripts below have in common. `ARGV`: how many fields are supposed, the bytes above which an entry is not
/// to be touched (0: any may be), the names of the fields, and from `first` on the items. Values of an item that are
/// supposed stand in its words; an empty one means that there is no such field.
///
/// An answer of `ASK` tells nothing: another way has to be found. There is no look at the clock: since Redis 7.2 it
/// stands still inside a script. What bounds a script is how many items it gets and how large each may be.
const SUPPOSED: &str = "
    local ASK, call, pcall = -3, redis.call, redis.pcall
    local count, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
    local first = count + 3
    local function are_supposed(values, at)
      for number = 1, count do
        local value = values[number]
        if value == '' or (value or '') ~= ARGV[at + number - 1] then return false end
      end
      return true
    end
    local function is_supposed(key, at)
      if count == 0 then return true end
      local values = pcall('HMGET', key, unpack(ARGV, 3, count + 2))
      return not values.err and are_supposed(values, at)
    end
    local function is_too_large(key)
      return limit > 0 and (call('MEMORY', 'USAGE', key) or 0) > limit
    end";

/// Items: key, values → 1 for each that is as supposed, 2 if it also expires, 0 for others.
pub(super) static WHICH_HOLD: LazyLock<Script> = LazyLock::new(|| {
    Script::light(&format!(
        "{SUPPOSED}
         local answers = {{}}
         for at = first, #ARGV, count + 1 do
           local answer = 0
           if is_supposed(ARGV[at], at + 1) then answer = call('PTTL', ARGV[at]) >= 0 and 2 or 1 end
           answers[#answers + 1] = answer
         end
         return answers"
    ))
});

/// Items: key, values → bytes that each takes (0: it is gone), or `ASK`.
pub(super) static MEASURE_SUPPOSED: LazyLock<Script> = LazyLock::new(|| {
    Script::light(&format!(
        "{SUPPOSED}
         local answers = {{}}
         for at = first, #ARGV, count + 1 do
           local answer = ASK
           if is_supposed(ARGV[at], at + 1) then answer = call('MEMORY', 'USAGE', ARGV[at]) or 0 end
           answers[#answers + 1] = answer
         end
         return answers"
    ))
});

/// Items: key, values → payload and absolute expiry of each, false if it is gone, or `ASK`.
pub(super) static READ_SUPPOSED: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{EXPIRY}{SUPPOSED}
         local answers, bytes = {{}}, 0
         for at = first, #ARGV, count + 1 do
           local key, answer = ARGV[at], ASK
           if is_supposed(key, at + 1) and not is_too_large(key) then
             local payload = call('DUMP', key)
             answer = payload and {{payload, expiry(key)}}
             if payload then bytes = bytes + #payload end
           end
           answers[#answers + 1] = answer
           if bytes > {ENOUGH_BYTES} then break end
         end
         return answers"
    ))
});

/// Items: source, target, values → 1 copied, 0 the target exists, -1 no source, or `ASK`.
pub(super) static COPY_SUPPOSED: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{SUPPOSED}
         local answers = {{}}
         for at = first, #ARGV, count + 2 do
           local source, answer = ARGV[at], ASK
           if is_supposed(source, at + 2) and not is_too_large(source) then
             answer = pcall('COPY', source, ARGV[at + 1])
             if type(answer) ~= 'number' then answer = ASK
             elseif answer == 0 and call('EXISTS', source) == 0 then answer = -1 end
           end
           answers[#answers + 1] = answer
         end
         return answers"
    ))
});

/// How two keys of one server compare: 1 equal, 2 equal until both expire, -1 no first, -2 no second, or `ASK`. Hashes are compared by their
/// fields: payloads of equal ones differ by the order in which fields lie.
const COMPARE: &str = "
    local numbers = {}
    for number = 1, count do numbers[ARGV[number + 2]] = number end
    local function holds_what_is_supposed(fields, at)
      local missing = count
      for number = 1, count do
        if ARGV[at + number - 1] == '' then missing = missing - 1 end
      end
      for field = 1, #fields, 2 do
        local number = numbers[fields[field]]
        if number then
          local value = fields[field + 1]
          if value == '' or value ~= ARGV[at + number - 1] then return false end
          missing = missing - 1
        end
      end
      return missing == 0
    end
    local function are_equal(ours, theirs)
      if #theirs ~= #ours then return false end
      local same = 1
      while same <= #ours and ours[same] == theirs[same] and ours[same + 1] == theirs[same + 1] do same = same + 2 end
      if same > #ours then return true end
      local held = {}
      for at = same, #theirs, 2 do held[theirs[at]] = theirs[at + 1] end
      for at = same, #ours, 2 do
        if held[ours[at]] ~= ours[at + 1] then return false end
      end
      return true
    end
    local function compare(source, target, at)
      if is_too_large(source) then return ASK end
      local ours = pcall('HGETALL', source)
      if count > 0 and (ours.err or not holds_what_is_supposed(ours, at)) then return ASK end
      local ends, others = expiry(source), expiry(target)
      if ends == -2 then return -1 end
      if others == -2 then return -2 end
      if ends ~= others or is_too_large(target) then return ASK end
      local equal = ends < 0 and 1 or 2
      if ours.err then return call('DUMP', source) == call('DUMP', target) and equal or ASK end
      local theirs = pcall('HGETALL', target)
      if theirs.err or not are_equal(ours, theirs) then return ASK end
      if fields_may_end and (#field_ends(source, ours, 1) > 0 or #field_ends(target, theirs, 1) > 0) then return ASK end
      return equal
    end";

/// Items: source, target, values, all of one server → how each pair compares.
pub(super) static COMPARE_PAIRS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{EXPIRY}{FIELD_ENDS}{SUPPOSED}{COMPARE}
         local answers = {{}}
         for at = first, #ARGV, count + 2 do
           answers[#answers + 1] = compare(ARGV[at], ARGV[at + 1], at + 2)
         end
         return answers"
    ))
});

/// Items: source, target, values, all of one server → how each pair compares; a source that equals its target
/// is unlinked in the same step.
pub(super) static UNLINK_EQUAL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{EXPIRY}{FIELD_ENDS}{SUPPOSED}{COMPARE}
         local answers = {{}}
         for at = first, #ARGV, count + 2 do
           local answer = compare(ARGV[at], ARGV[at + 1], at + 2)
           if answer > 0 then call('UNLINK', ARGV[at]) end
           answers[#answers + 1] = answer
         end
         return answers"
    ))
});

/// `read(key)` → type, absolute expiry, value and when fields of a hash end (empty: never), or false.
const READ: &str = "
    local function read(key)
      local ends = {}
      local kind = redis.call('TYPE', key).ok
      if kind == 'none' then return false end
      local value
      if kind == 'hash' then
        value = redis.call('HGETALL', key)
        ends = field_ends(key, value, 1)
      elseif kind == 'string' then value = redis.call('GET', key)
      elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
      elseif kind == 'set' then value = redis.call('SMEMBERS', key)
      elseif kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
      elseif kind == 'stream' then
        value = {redis.call('XRANGE', key, '-', '+'), redis.call('XINFO', 'STREAM', key, 'FULL', 'COUNT', 0)}
      else value = redis.call('DUMP', key) end
      return {kind, expiry(key), value, ends}
    end";

/// `KEYS` key → the entry, or false.
pub(super) static READ_ENTRY: LazyLock<Script> =
    LazyLock::new(|| Script::new(&format!("{EXPIRY}{FIELD_ENDS}{READ} return read(KEYS[1])")));

/// `ARGV` keys → the entry of each, or false.
pub(super) static READ_ENTRIES: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{EXPIRY}{FIELD_ENDS}{READ}
         local answers, bytes = {{}}, 0
         for at = 1, #ARGV do
           local entry = read(ARGV[at])
           answers[at] = entry
           if entry then
             local value = entry[3]
             if type(value) == 'string' then bytes = bytes + #value
             else for _, member in ipairs(value) do bytes = bytes + #member end end
           end
           if bytes > {ENOUGH_BYTES} then break end
         end
         return answers"
    ))
});

/// Shared by the conditional writes: is `KEYS[1]` the hash with the expiry `ARGV[1]` and the fields
/// and values from `ARGV[first]` on, none of which ends by itself? 1 yes, 0 no, -1 no such key.
const IS_EXPECTED_HASH: &str = "
    local function is_expected(first)
      local kind = redis.call('TYPE', KEYS[1]).ok
      if kind == 'none' then return -1 end
      if kind ~= 'hash' then return 0 end
      if expiry(KEYS[1]) ~= tonumber(ARGV[1]) then return 0 end
      if redis.call('HLEN', KEYS[1]) * 2 ~= #ARGV - first + 1 then return 0 end
      for at = first, #ARGV, 2 do
        if redis.call('HGET', KEYS[1], ARGV[at]) ~= ARGV[at + 1] then return 0 end
      end
      if #field_ends(KEYS[1], ARGV, first) > 0 then return 0 end
      return 1
    end";

/// `KEYS` key, `ARGV` expiry, fields and values: unlinks the hash if it is still this one.
pub(super) static UNLINK_IF_HASH_IS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{EXPIRY}{FIELD_ENDS}{IS_EXPECTED_HASH}
         local answer = is_expected(2)
         if answer == 1 then redis.call('UNLINK', KEYS[1]) end
         return answer"
    ))
});

/// `KEYS` key, `ARGV` expiry, new payload, new expiry, fields and values: replaces the hash if it is
/// still this one.
pub(super) static REPLACE_IF_HASH_IS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{EXPIRY}{FIELD_ENDS}{IS_EXPECTED_HASH}
         local answer = is_expected(4)
         if answer == 1 then redis.call('RESTORE', KEYS[1], ARGV[3], ARGV[2], 'REPLACE', 'ABSTTL') end
         return answer"
    ))
});

/// `KEYS` key, `ARGV` expiry, new expiry, fields and values: makes the hash expire if it is still this one.
pub(super) static EXPIRE_IF_HASH_IS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{EXPIRY}{FIELD_ENDS}{IS_EXPECTED_HASH}
         local answer = is_expected(3)
         if answer == 1 then redis.call('PEXPIREAT', KEYS[1], ARGV[2]) end
         return answer"
    ))
});

/// `KEYS` key, `ARGV` name, `1` or `0` for whether the hash had the field, the value it had, the value to set,
/// and so on: sets the fields if each still is as it was. 1 yes, 0 no, -1 no such key. The expiry
/// stays, and so does that of a field, which `HSET` alone would take away.
pub(super) static SET_FIELDS_IF_UNCHANGED: LazyLock<Script> = LazyLock::new(|| {
    Script::new(&format!(
        "{FIELD_ENDS}
         local kind = redis.call('TYPE', KEYS[1]).ok
         if kind == 'none' then return -1 end
         if kind ~= 'hash' then return 0 end
         for at = 1, #ARGV, 4 do
           local expected = ARGV[at + 1] == '1' and ARGV[at + 2]
           if redis.call('HGET', KEYS[1], ARGV[at]) ~= expected then return 0 end
         end
         for at = 1, #ARGV, 4 do
           local ends = field_ends(KEYS[1], {{ARGV[at]}}, 1)[1]
           redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 3])
           if ends then redis.call('HPEXPIREAT', KEYS[1], ends, 'FIELDS', 1, ARGV[at]) end
         end
         return 1"
    ))
});

/// `KEYS` lock, `ARGV` value, life in ms → 1 taken (or ours already), or the holder's value and its remaining life.
pub(super) static TAKE_LOCK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('TYPE', KEYS[1]).ok ~= 'none' and redis.call('TYPE', KEYS[1]).ok ~= 'string' then
           return {'', redis.call('PTTL', KEYS[1])}
         end
         local held = redis.call('GET', KEYS[1])
         if not held then redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) return 1 end
         if held == ARGV[1] then redis.call('PEXPIRE', KEYS[1], ARGV[2]) return 1 end
         return {held, redis.call('PTTL', KEYS[1])}",
    )
});

/// `KEYS` lock, `ARGV` value, life in ms → 1 if it is still ours. `PEXPIRE` works under `OOM`, `SET` would not.
pub(super) static RENEW_LOCK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
         return redis.call('PEXPIRE', KEYS[1], ARGV[2])",
    )
});

/// `KEYS` lock, `ARGV` value → 1 if it was ours and is gone. A key of another type has the value ''.
pub(super) static RELEASE_LOCK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local kind = redis.call('TYPE', KEYS[1]).ok
         if kind == 'none' then return 0 end
         local held = ''
         if kind == 'string' then held = redis.call('GET', KEYS[1]) end
         if held ~= ARGV[1] then return 0 end
         return redis.call('DEL', KEYS[1])",
    )
});

/// `KEYS` key, `ARGV` life in ms: a write that replicas acknowledge.
pub(super) static WRITE_BARRIER: LazyLock<Script> =
    LazyLock::new(|| Script::new("redis.call('SET', KEYS[1], 1, 'PX', ARGV[1]) return 1"));

/// `KEYS` run hash, `ARGV` life in ms, then fields and values: creates or renews the run, keeping what
/// is not named.
pub(super) static WRITE_RUN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "for at = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
         return redis.call('PEXPIRE', KEYS[1], ARGV[1])",
    )
});

/// As the one before, and the token goes.
pub(super) static CLAIM_RUN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "redis.call('HDEL', KEYS[1], 'token')
         for at = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
         return redis.call('PEXPIRE', KEYS[1], ARGV[1])",
    )
});

/// `KEYS` mark, run; `ARGV` token, then fields and values: writes the mark if the run is still ours, and
/// ends the run (its owner stays until it expires).
pub(super) static WRITE_MARK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HGET', KEYS[2], 'token') ~= ARGV[1] then return 0 end
         for at = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
         redis.call('HDEL', KEYS[1], 'init_claim')
         redis.call('HDEL', KEYS[2], 'token', 'started_at', 'targets_before', 'sourceless_before', 'reopened')
         return 1",
    )
});

/// `KEYS` mark; `ARGV` expected status, then fields and values: adds to a mark that says so.
pub(super) static STAMP_MARK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HGET', KEYS[1], 'status') ~= ARGV[1] then return 0 end
         for at = 2, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
         return 1",
    )
});

/// `KEYS` mark: takes the stamps off a mark, so that it is a claim that has to be proven again.
pub(super) static UNSTAMP_MARK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HGET', KEYS[1], 'status') ~= 'applied' then return 0 end
         return redis.call('HDEL', KEYS[1], 'verified_at', 'init_token')",
    )
});

/// `KEYS` mark; `ARGV` fields and values: writes a mark where none stands.
pub(super) static WRITE_MARK_IF_ABSENT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local status = redis.call('HGET', KEYS[1], 'status')
         if status == 'applied' or status == 'not_applicable' then return 0 end
         for at = 1, #ARGV, 2 do redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
         return 1",
    )
});

/// `KEYS` mark; `ARGV` name of the claim, token, then fields and values: claims a mark that nobody vouches for. Its
/// other fields stay as they are.
pub(super) static CLAIM_MARK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HEXISTS', KEYS[1], 'verified_at') == 1 or redis.call('HEXISTS', KEYS[1], 'init_token') == 1 then
           return 0
         end
         redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
         for at = 3, #ARGV, 2 do
           if redis.call('HEXISTS', KEYS[1], ARGV[at]) == 0 then redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 1]) end
         end
         return 1",
    )
});

/// `KEYS` mark; `ARGV` name of the claim, token, name of the stamp: a claim of this token becomes a stamp.
pub(super) static CONFIRM_MARK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return 0 end
         redis.call('HSET', KEYS[1], 'status', 'applied', ARGV[3], ARGV[2])
         redis.call('HDEL', KEYS[1], ARGV[1])
         return 1",
    )
});

/// `KEYS` mark; `ARGV` name of the claim, name of the stamp, token: deletes a mark that the initialisation of this
/// token claimed or stamped, unless it was proven since.
pub(super) static WITHDRAW_MARK: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('HEXISTS', KEYS[1], 'verified_at') == 1 then return 0 end
         if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[3] and redis.call('HGET', KEYS[1], ARGV[2]) ~= ARGV[3] then
           return 0
         end
         return redis.call('DEL', KEYS[1])",
    )
});

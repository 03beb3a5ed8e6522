//! Sends batches of commands to the primaries that own their slots, and answers redirections.
//!
//! Owns the connections, the present topology and the retries. Refuses to send anything once the
//! lock it was given is lost, and to use a connection that whoever takes the lock would not have closed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{self, Arc};
use std::time::Duration;

use futures::future::join_all;
use redis::{Cmd, Value};
use tokio::sync::{Mutex, RwLock, Semaphore};

use crate::keyspace::command::Command;
use crate::keyspace::connection::{self, Connection, Identity};
use crate::keyspace::endpoint::{NodeAddress, RedisEndpoint};
use crate::keyspace::fault::{Fault, FaultClass, Remedy};
use crate::keyspace::learning;
use crate::keyspace::lease::HeldLock;
use crate::keyspace::patience::{PATIENCE, backoff};
use crate::keyspace::script::Script;
use crate::keyspace::server;
use crate::keyspace::topology::{Primary, Topology};
use crate::model::key::RedisKey;
use crate::model::slot::slot_of;

/// A Redis keyspace: one server, or all primaries of a cluster.
pub struct Keyspace {
    endpoint: RedisEndpoint,
    name: String,
    lock: Option<Arc<HeldLock>>,
    topology: RwLock<Arc<Topology>>,
    /// How often learning the topology was begun.
    learnings: AtomicU64,
    learned: Mutex<Learned>,
    connections: Mutex<HashMap<NodeAddress, Arc<Place>>>,
    disturbances: AtomicU64,
}

/// What came of learning the topology.
#[derive(Default)]
struct Learned {
    /// Which learning it was.
    number: u64,
    outcome: Option<Result<Arc<Topology>, Fault>>,
    /// Every primary that was ever asked, by its id: they may know when the configured node does not.
    known: BTreeMap<String, NodeAddress>,
}

/// Scripts under way to one node: while one is worked on the next waits there, and answers to others are read here.
const TURNS: usize = 4;

/// What belongs to one node.
struct Place {
    slot: Mutex<Slot>,
    turns: Semaphore,
    /// Further connections that nobody uses now.
    idle: sync::Mutex<Vec<Connection>>,
}

impl Default for Place {
    fn default() -> Self {
        Self { slot: Mutex::default(), turns: Semaphore::new(TURNS), idle: sync::Mutex::default() }
    }
}

impl Place {
    fn idle(&self) -> sync::MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(sync::PoisonError::into_inner)
    }
}

/// A place for a node's connection; remembers the last one so that nothing in flight on it lands late.
#[derive(Default)]
struct Slot {
    live: Option<Connection>,
    dropped: Option<Identity>,
}

impl Keyspace {
    /// Connects for reading, and learns the topology.
    ///
    /// # Errors
    /// The fault that kept it from being reached, or [`FaultClass::ClusterMode`].
    pub async fn connect(endpoint: RedisEndpoint, name: impl Into<String>) -> Result<Self, Fault> {
        Self::connect_as(endpoint, name.into(), None).await
    }

    pub(super) async fn connect_as(
        endpoint: RedisEndpoint,
        name: String,
        lock: Option<Arc<HeldLock>>,
    ) -> Result<Self, Fault> {
        let keyspace = Self {
            endpoint,
            name,
            lock,
            topology: RwLock::new(Arc::new(Topology::new(Vec::new()))),
            learnings: AtomicU64::new(0),
            learned: Mutex::default(),
            connections: Mutex::new(HashMap::new()),
            disturbances: AtomicU64::new(0),
        };
        keyspace.relearn().await?;
        Ok(keyspace)
    }

    /// The endpoint it was made for.
    #[must_use]
    pub fn endpoint(&self) -> &RedisEndpoint {
        &self.endpoint
    }

    /// The name of its connections, which ends with the holder's token.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The topology as last learned.
    pub async fn topology(&self) -> Arc<Topology> {
        Arc::clone(&*self.topology.read().await)
    }

    /// Counts lost connections, changes of topology and redirections into a slot that opened: equal before and after means nothing
    /// happened in between that this side could notice.
    #[must_use]
    pub fn disturbances(&self) -> u64 {
        self.disturbances.load(Ordering::SeqCst)
    }

    /// Asks every primary about itself. Those who ask at the same time share an answer that is younger than each of
    /// their questions.
    ///
    /// # Errors
    /// The fault of the configured node when no known node answers.
    pub async fn relearn(&self) -> Result<Arc<Topology>, Fault> {
        let begun_before = self.learnings.load(Ordering::SeqCst);
        let mut last = self.learned.lock().await;
        if let Some(outcome) = last.outcome.as_ref().filter(|_| last.number > begun_before) {
            return outcome.clone();
        }

        last.number = self.learnings.fetch_add(1, Ordering::SeqCst) + 1;
        last.outcome = None;
        let outcome = Box::pin(learning::learn(self, &last.known)).await.map(Arc::new);
        // Without the lock no primary can be asked, which says nothing about them.
        if self.lock.as_ref().is_some_and(|lock| !lock.clock.holds()) {
            return Err(Fault::new(FaultClass::LeaseEnded));
        }
        if let Ok(learned) = &outcome {
            last.known.extend(learned.all().map(|primary| (primary.node_id.clone(), primary.address.clone())));
            let mut held = self.topology.write().await;
            if **held != **learned && !held.primaries.is_empty() {
                self.disturbances.fetch_add(1, Ordering::SeqCst);
            }
            *held = Arc::clone(learned);
        }
        last.outcome = Some(outcome.clone());
        outcome
    }

    /// Sends each command to the owner of its slot and gives the answers in order. Passing faults
    /// are retried within a bounded patience; a fault that stays is that command's answer.
    pub(super) async fn run(&self, commands: Vec<Command>) -> Vec<Result<Value, Fault>> {
        self.run_batch(Batch::new(commands, None)).await
    }

    /// As [`Keyspace::run`], but sends nothing once the count of [`Keyspace::disturbances`] is another
    /// than `undisturbed`: what these writes rely on was read before.
    pub(super) async fn run_undisturbed(&self, commands: Vec<Command>, undisturbed: u64) -> Vec<Result<Value, Fault>> {
        self.run_batch(Batch::new(commands, Some(undisturbed))).await
    }

    async fn run_batch(&self, mut batch: Batch) -> Vec<Result<Value, Fault>> {
        let started = tokio::time::Instant::now();
        let mut pauses = backoff();
        loop {
            self.send_pending(&mut batch).await;
            let Some(need) = batch.settle() else { break };
            if started.elapsed() > PATIENCE {
                break;
            }
            if need.pause {
                tokio::time::sleep(pauses.next().unwrap_or(Duration::from_secs(1))).await;
            }
            let is_news = self.are_news(&need.half_moved).await;
            if is_news {
                self.disturbances.fetch_add(1, Ordering::SeqCst);
            }
            if need.relearn || is_news {
                // A failed look is no news: the commands themselves find out.
                let _ = self.relearn().await;
            }
        }
        batch.into_answers()
    }

    /// Whether any of these slots, which a node says are half-moved, was not known to be open: what is decided on answers
    /// from before would not know where their keys are now.
    async fn are_news(&self, half_moved: &[u16]) -> bool {
        if half_moved.is_empty() {
            return false;
        }
        let open = self.topology().await.open();
        half_moved.iter().any(|slot| !open.contains(*slot))
    }

    /// Sends one command.
    pub(super) async fn run_one(&self, command: Command) -> Result<Value, Fault> {
        self.run(vec![command]).await.pop().unwrap_or(Err(Fault::new(FaultClass::UnexpectedAnswer)))
    }

    /// Sends a script's command. Where a full server refuses it, it goes there as a script that a full server takes:
    /// for the few small writes without which nobody could begin to free memory.
    pub(super) async fn run_at_memory_limit(
        &self,
        script: &'static Script,
        command: impl Fn(&'static Script) -> Command,
    ) -> Result<Value, Fault> {
        let refused = match self.run_one(command(script)).await {
            Err(fault) if fault.class == FaultClass::OutOfMemory => fault,
            answer => return answer,
        };
        let Some(node) = &refused.at else { return Err(refused) };
        let unbound = script.at_memory_limit();
        match self.ask_node(node, unbound.load_command()).await {
            Ok(_) => self.run_one(command(unbound)).await,
            // Before Redis 7.0 there is no such script.
            Err(_) => Err(refused),
        }
    }

    async fn send_pending(&self, batch: &mut Batch) {
        let topology = self.topology().await;
        let groups = batch.group(&topology);
        let undisturbed = batch.undisturbed;
        let commands = &batch.commands;
        let sent = groups.into_iter().map(|Group { node, asking, indexes }| async move {
            let words = if asking { 2 } else { 1 };
            let mut sent = Vec::with_capacity(indexes.len() * words);
            let mut scripts = Vec::new();
            for &index in &indexes {
                if asking {
                    sent.push(redis::cmd("ASKING"));
                }
                sent.push(commands[index].cmd.clone());
                if let Some(script) = commands[index].script
                    && !scripts.iter().any(|other: &&Script| std::ptr::eq(*other, script))
                {
                    scripts.push(script);
                }
            }
            let mut answers = self.ask_node_all(&node, sent, &scripts, undisturbed).await;
            if asking {
                // Every other answer is that of ASKING.
                answers = answers.into_iter().skip(1).step_by(2).collect();
            }
            (indexes, answers)
        });
        for (indexes, answers) in join_all(sent).await {
            for (index, answer) in indexes.into_iter().zip(answers) {
                batch.answers[index] = Some(answer);
            }
        }
    }

    /// Sends a script's command to one node when few others are under way there, if it is still wanted then: a server
    /// works on all that it read from a connection at once before it turns to other clients.
    pub(super) async fn take_turn(
        &self,
        node: &NodeAddress,
        script: &'static Script,
        command: impl FnOnce() -> Option<Cmd>,
        undisturbed: Option<u64>,
    ) -> Option<Result<Value, Fault>> {
        let place = self.place(node).await;
        // Nobody closes it, so there always is a turn.
        let _turn = place.turns.acquire().await;
        self.ask_node_all(node, vec![command()?], &[script], undisturbed).await.pop()
    }

    /// Sends commands, which run these scripts, to one node, whatever slots it owns.
    pub(super) async fn ask_node_all(
        &self,
        node: &NodeAddress,
        commands: Vec<Cmd>,
        scripts: &[&'static Script],
        undisturbed: Option<u64>,
    ) -> Vec<Result<Value, Fault>> {
        let count = commands.len();
        match self.pipeline(node, commands, scripts, undisturbed).await {
            Ok(answers) => answers,
            Err(fault) => vec![Err(fault); count],
        }
    }

    async fn pipeline(
        &self,
        node: &NodeAddress,
        commands: Vec<Cmd>,
        scripts: &[&'static Script],
        undisturbed: Option<u64>,
    ) -> Result<Vec<Result<Value, Fault>>, Fault> {
        let mut connection = self.connection(node).await?;
        self.check_lease(node)?;
        if undisturbed.is_some_and(|count| count != self.disturbances()) {
            return Err(Fault::of(FaultClass::Disturbed, node));
        }
        match connection.send(commands.into_iter(), scripts, node).await {
            Ok(answers) => {
                if answers.iter().any(|answer| matches!(answer, Err(fault) if fault.class == FaultClass::ReadOnly)) {
                    // The address may lead to the promoted server by now; this connection never will.
                    self.drop_connection(node, &connection.identity).await;
                }
                Ok(answers)
            }
            Err(fault) => {
                self.drop_connection(node, &connection.identity).await;
                Err(fault)
            }
        }
    }

    /// Sends one command to one node, whatever slots it owns.
    pub(super) async fn ask_node(&self, node: &NodeAddress, command: Cmd) -> Result<Value, Fault> {
        self.pipeline(node, vec![command], &[], None)
            .await?
            .pop()
            .unwrap_or(Err(Fault::of(FaultClass::UnexpectedAnswer, node)))
    }

    /// Opens a further connection to a node, for commands that occupy one (`WATCH`, `WAIT`).
    pub(super) async fn own_connection(&self, node: &NodeAddress) -> Result<Connection, Fault> {
        self.open(node, None).await
    }

    /// A connection to a primary that nobody else uses until it is given back by [`Keyspace::keep_idle`]: an idle one,
    /// or a further one. There are as many as batches that need one at the same time.
    ///
    /// # Errors
    /// [`FaultClass::Disturbed`] if the node is another run of the server than the one known; the fault that kept it
    /// from answering.
    pub(super) async fn borrow_connection(&self, primary: &Primary) -> Result<Connection, Fault> {
        let node = &primary.address;
        loop {
            let idle = self.place(node).await.idle().pop();
            let was_idle = idle.is_some();
            let mut connection = match idle {
                Some(idle) => idle,
                None => self.own_connection(node).await?,
            };
            match server::is_still(self, primary, &mut connection).await {
                Ok(true) => return Ok(connection),
                // It went, or its server is another by now, while nobody used it: nothing was lost with it.
                Ok(false) if was_idle => {}
                Err(fault) if was_idle && fault.class.is_connection_lost() => {}
                Ok(false) => return Err(Fault::of(FaultClass::Disturbed, node)),
                Err(fault) => return Err(fault),
            }
        }
    }

    /// Keeps a borrowed connection for the next who needs one. It has been answered everything, and watches nothing.
    pub(super) async fn keep_idle(&self, node: &NodeAddress, connection: Connection) {
        self.place(node).await.idle().push(connection);
    }

    /// Opens a connection that may be used for writing, if this keyspace may write.
    ///
    /// Who takes the lock closes the connections of earlier holders by their names. So the lock is renewed after this
    /// one has its name: either the taker sees and closes it, or the renewal tells that the lock is lost. That holds
    /// without any clock, which may have stood still with its machine.
    async fn open(&self, node: &NodeAddress, dropped: Option<&Identity>) -> Result<Connection, Fault> {
        self.check_lease(node)?;
        let mut opened = connection::open(&self.endpoint, node, &self.name).await?;
        if let Some(dropped) = dropped {
            // What the lost connection still had in flight must not land after what follows. Where the
            // user may not do this, the compare-and-set of every write is what is left.
            let _ = dropped.kill_command().query_async::<i64>(&mut opened.inner).await;
        }
        match &self.lock {
            Some(lock) if !lock.renew().await? => Err(Fault::of(FaultClass::LeaseEnded, node)),
            Some(_) | None => Ok(opened),
        }
    }

    pub(super) fn check_lease(&self, node: &NodeAddress) -> Result<(), Fault> {
        match &self.lock {
            Some(lock) if !lock.clock.holds() => Err(Fault::of(FaultClass::LeaseEnded, node)),
            Some(_) | None => Ok(()),
        }
    }

    /// Each node has a place of its own, so that opening a connection to one that hangs holds up no other.
    async fn place(&self, node: &NodeAddress) -> Arc<Place> {
        Arc::clone(self.connections.lock().await.entry(node.clone()).or_default())
    }

    async fn connection(&self, node: &NodeAddress) -> Result<Connection, Fault> {
        let place = self.place(node).await;
        let mut slot = place.slot.lock().await;
        if let Some(live) = &slot.live {
            return Ok(live.clone());
        }
        let opened = self.open(node, slot.dropped.as_ref()).await?;
        slot.dropped = None;
        slot.live = Some(opened.clone());
        Ok(opened)
    }

    async fn drop_connection(&self, node: &NodeAddress, identity: &Identity) {
        self.disturbances.fetch_add(1, Ordering::SeqCst);
        let place = self.place(node).await;
        let mut slot = place.slot.lock().await;
        if slot.live.as_ref().is_some_and(|live| live.identity == *identity) {
            slot.live = None;
            slot.dropped = Some(identity.clone());
        }
    }

    /// Keys by the node that owns their slots, as last learned, so that each node is waited for by itself.
    pub(super) async fn by_owner(&self, keys: &[RedisKey]) -> Vec<Vec<RedisKey>> {
        let topology = self.topology().await;
        let mut shares: BTreeMap<Option<usize>, Vec<RedisKey>> = BTreeMap::new();
        for key in keys {
            shares.entry(topology.owner_index(slot_of(key))).or_default().push(key.clone());
        }
        shares.into_values().collect()
    }

    /// Lets go of the connection over which a command on this key got no answer in time. Returns that as a fault of its
    /// node.
    pub(super) async fn unanswered(&self, key: &RedisKey) -> Fault {
        let topology = self.topology().await;
        let Some(owner) = topology.owner(slot_of(key)) else { return Fault::new(FaultClass::ClusterDown) };
        let place = self.place(&owner.address).await;
        // Where somebody is just opening another, there is none to let go of, and no time to wait for it.
        if let Ok(mut slot) = place.slot.try_lock()
            && let Some(live) = slot.live.take()
        {
            slot.dropped = Some(live.identity);
            self.disturbances.fetch_add(1, Ordering::SeqCst);
        }
        Fault::of(FaultClass::Timeout, &owner.address)
    }

    /// Lets go of a node's connection, since its address may lead to another server by now.
    pub(super) async fn hang_up(&self, node: &NodeAddress) {
        let live = self.place(node).await.slot.lock().await.live.as_ref().map(|live| live.identity.clone());
        if let Some(identity) = live {
            self.drop_connection(node, &identity).await;
        }
    }
}

/// Commands with the answers so far.
struct Batch {
    commands: Vec<Command>,
    answers: Vec<Option<Result<Value, Fault>>>,
    ask: HashMap<usize, NodeAddress>,
    last_fault: HashMap<usize, Fault>,
    /// The count of disturbances after which nothing of it may be sent.
    undisturbed: Option<u64>,
}

/// Commands for one node; `asking` where it was named by a redirection for one command only.
struct Group {
    node: NodeAddress,
    asking: bool,
    indexes: Vec<usize>,
}

/// What has to happen before the rest is sent again.
#[derive(Default)]
struct Need {
    pause: bool,
    relearn: bool,
    /// Slots that a node redirected a command of (`ASK`).
    half_moved: Vec<u16>,
}

impl Batch {
    fn new(commands: Vec<Command>, undisturbed: Option<u64>) -> Self {
        let answers = commands.iter().map(|_| None).collect();
        Self { commands, answers, ask: HashMap::new(), last_fault: HashMap::new(), undisturbed }
    }

    /// Commands without an answer, by the node to ask. A slot that nobody owns is answered at once.
    fn group(&mut self, topology: &Topology) -> Vec<Group> {
        let mut shares: Vec<Vec<usize>> = vec![Vec::new(); topology.primaries.len()];
        let mut asked: HashMap<NodeAddress, Vec<usize>> = HashMap::new();
        for (index, command) in self.commands.iter().enumerate() {
            if self.answers[index].is_some() {
                continue;
            }
            match (self.ask.get(&index), topology.owner_index(command.slot)) {
                (Some(node), _) => asked.entry(node.clone()).or_default().push(index),
                (None, Some(owner)) => shares[owner].push(index),
                (None, None) => self.answers[index] = Some(Err(Fault::new(FaultClass::ClusterDown))),
            }
        }
        let owned =
            topology.primaries.iter().zip(shares).map(|(owner, indexes)| (owner.address.clone(), false, indexes));
        let asked = asked.into_iter().map(|(node, indexes)| (node, true, indexes));
        owned
            .chain(asked)
            .filter(|(_, _, indexes)| !indexes.is_empty())
            .map(|(node, asking, indexes)| Group { node, asking, indexes })
            .collect()
    }

    /// Takes back the answers that a retry may better; `None` when there are none.
    fn settle(&mut self) -> Option<Need> {
        let mut need = None::<Need>;
        self.ask.clear();
        for (index, answer) in self.answers.iter_mut().enumerate() {
            let Some(Err(fault)) = answer else { continue };
            let mut half_moved = None;
            let (pause, relearn) = match fault.class.remedy() {
                Remedy::GiveUp => continue,
                Remedy::Wait => (true, false),
                Remedy::Relearn => (fault.class != FaultClass::Moved, true),
                Remedy::LoadScripts => (false, false),
                Remedy::AskOther => {
                    if let Some(node) = fault.at.clone() {
                        self.ask.insert(index, node);
                    }
                    half_moved = Some(self.commands[index].slot);
                    (false, false)
                }
            };
            self.last_fault.insert(index, fault.clone());
            *answer = None;
            let merged = need.get_or_insert_default();
            merged.pause |= pause;
            merged.relearn |= relearn;
            merged.half_moved.extend(half_moved);
        }
        need
    }

    fn into_answers(mut self) -> Vec<Result<Value, Fault>> {
        let last_fault = &mut self.last_fault;
        let unanswered = |index| last_fault.remove(&index).unwrap_or(Fault::new(FaultClass::ClusterDown));
        let mut unanswered = unanswered;
        self.answers
            .into_iter()
            .enumerate()
            .map(|(index, answer)| answer.unwrap_or_else(|| Err(unanswered(index))))
            .collect()
    }
}

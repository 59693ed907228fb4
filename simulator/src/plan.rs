//! What a seed picks: sizes, delays, and its own mix of faults (swarm testing, Groce et al., ISSTA 2012: a run that leaves most faults
//! out goes deeper into those that it has).
//!
//! A [`Reduction`] takes away from what the seed picked, for shrinking; without one the plan is a function of the seed alone.

use antiphon_engine::{EngineOptions, encryption::NodeKey, memory_files::MemoryRandom, offline::Access};

use crate::dice::Dice;

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident $name:literal;)*) => {
        /// A fault that the world can do, one step at a time.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Fault { $($(#[$doc])* $variant,)* }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

faults! {
    /// A connection breaks.
    Cut "cut";
    /// A connection goes silent; nobody is told.
    Silence "silence";
    /// A client stops reading for a while.
    Stall "stall";
    /// A client restarts with what it had.
    RestartKept "restart-kept";
    /// A client restarts with an older state.
    RestartBack "restart-back";
    /// A client restarts with nothing.
    RestartLost "restart-lost";
    /// A device connects a second time.
    Twin "twin";
    /// The power fails.
    Crash "crash";
    /// The process is killed.
    Kill "kill";
    /// The node is restarted in order.
    Drain "drain";
    /// The wall clock jumps.
    ClockJump "clock-jump";
    /// The disk is full for a while.
    Full "full";
    /// Reads fail for a while.
    ReadError "read-error";
    /// A write fails.
    WriteError "write-error";
    /// A sync fails.
    SyncError "sync-error";
    /// An operation on names fails.
    NameError "name-error";
    /// A bit of a segment flips.
    FlipSegment "flip-segment";
    /// A bit of the log flips, before its end.
    FlipLog "flip-log";
    /// A bit of another file flips.
    FlipOther "flip-other";
    /// A sector of a segment can't be read any more.
    BreakRange "break-range";
    /// A write goes to a wrong place, which it destroys, and is missing at its own.
    MisdirectWrite "misdirect-write";
    /// A sector of the log can't be read any more.
    BreakLog "break-log";
    /// A read gives what stands at a wrong place.
    MisdirectRead "misdirect-read";
    /// A write fails, and reaches the disk later.
    LateWrite "late-write";
    /// A disk is slow for a while.
    Slow "slow-disk";
    /// A disk answers nothing for a while.
    Hang "hung-disk";
    /// The wall clock stands for a while.
    ClockStop "clock-stop";
    /// The node starts with other settings of its engine.
    Reconfigure "reconfigure";
    /// One lane's disk is slower than another's.
    UnequalDisks "unequal-disks";
    /// A bit of a batch's own bytes flips, which are few beside the padding of its pages.
    FlipBatch "flip-batch";
    /// The node starts with another number of lanes.
    Relane "relane";
    /// An operator has a running lane make a checkpoint: no fault, but it meets them.
    Checkpoint "checkpoint";
    /// Lanes read what they have stored in the background, for its checksums: no fault, but it meets them.
    Scrub "scrub";
    /// The stores are encrypted: no fault, but it meets them.
    Encrypt "encrypt";
    /// An operator erases a conversation of an encrypted store before a start.
    Erase "erase";
    /// An operator wraps the data keys by another node key before a start.
    Rewrap "rewrap";
}

/// Faults that the first seeds were drawn with. Later ones are drawn from dice of their own, so that a seed without them stays what it was.
const FIRST_FAULTS: usize = 20;

impl Fault {
    /// It destroys stored data: some of it may be gone, which must be said and never be covered up.
    #[must_use]
    pub fn is_rot(self) -> bool {
        matches!(
            self,
            Self::FlipSegment
                | Self::FlipLog
                | Self::FlipOther
                | Self::BreakRange
                | Self::MisdirectWrite
                | Self::BreakLog
                | Self::FlipBatch
        )
    }

    /// It happens at some step; the others are of the whole run.
    #[must_use]
    pub fn is_of_a_moment(self) -> bool {
        !matches!(
            self,
            Self::Reconfigure
                | Self::UnequalDisks
                | Self::Relane
                | Self::Scrub
                | Self::Encrypt
                | Self::Erase
                | Self::Rewrap
        )
    }

    /// The faults that came after the first seeds, as [`Reduction::without`] wants them.
    #[must_use]
    pub fn later() -> u64 {
        Self::ALL.iter().skip(FIRST_FAULTS).fold(0, |bits, fault| bits | (1 << *fault as u64))
    }

    /// Encryption and what comes with it, as [`Reduction::without`] wants it.
    #[must_use]
    pub fn of_encryption() -> u64 {
        [Self::Encrypt, Self::Erase, Self::Rewrap].iter().fold(0, |bits, fault| bits | (1 << *fault as u64))
    }

    /// The disk refuses an operation; what was acknowledged stays.
    #[must_use]
    pub fn is_disk_error(self) -> bool {
        matches!(self, Self::ReadError | Self::WriteError | Self::SyncError | Self::NameError | Self::LateWrite)
    }
}

/// What is taken away from a plan.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reduction {
    /// Faults left out, a bit each in the order of [`Fault::ALL`].
    pub without: u64,
    /// Most steps; 0: as many as the seed says.
    pub steps_max: u32,
    /// Most clients; 0: as many as the seed says.
    pub clients_max: u32,
    /// One shard and one lane.
    pub one_lane: bool,
    /// Messages say text alone and nothing beside, and nothing is told for the moment.
    pub text_only: bool,
}

/// What a client is.
#[derive(Debug, Clone, Copy)]
pub struct ClientPlan {
    /// Which user.
    pub user: usize,
    /// Which of the user's devices.
    pub device: usize,
    /// A second connection of a device that another client has.
    pub twin: bool,
    /// JSON, or else rkyv.
    pub json: bool,
    /// Tells the server what was delivered.
    pub delivers: bool,
}

/// A run's sizes and mix.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Shards at the first start.
    pub shards: u16,
    /// Log lanes.
    pub lanes: u8,
    /// Users.
    pub users: usize,
    /// Clients.
    pub clients: Vec<ClientPlan>,
    /// Actions and faults.
    pub steps: u32,
    /// Longest usual time between two.
    pub step_us_max: u64,
    /// Longest text, in bytes.
    pub text_bytes_max: u64,
    /// How often a step is a burst of sends, in a thousand.
    pub burst_per_thousand: u64,
    /// Members are removed so often, in a thousand changes.
    pub removal_per_thousand: u64,
    /// The creator of a group is never removed.
    pub founders_stay: bool,
    /// A change of a message is a retention mark instead so often, in a thousand.
    pub retain_per_thousand: u64,
    /// How often a step is about roles, settings or bans of a group, in a thousand.
    pub groups_per_thousand: u64,
    /// How often a message says more than text, in a thousand.
    pub contents_per_thousand: u64,
    /// How often something is told for the moment beside a step, in a thousand.
    pub tells_per_thousand: u64,
    /// How often somebody makes or uses an invite beside a step, in a thousand.
    pub invites_per_thousand: u64,
    /// How often somebody sets or lists account data.
    pub accounts_per_thousand: u64,
    /// How often somebody watches who is there, or says who may see it.
    pub presence_per_thousand: u64,
    /// How often somebody logs devices out, names one, or lists them.
    pub devices_per_thousand: u64,
    /// Connections that a shard gives a message in one turn.
    pub pushes_at_a_time: usize,
    /// Members of a conversation beyond which only who looks at it is given what happens.
    pub bodies_members: usize,
    /// Between two hints about one.
    pub hint_ms: u64,
    /// How often somebody begins or ends to look at a conversation.
    pub views_per_thousand: u64,
    /// Members of a conversation beyond which a lane keeps who is there.
    pub large_members: usize,
    /// By fault, in the order of [`Fault::ALL`]: how often a step is this one, in a thousand.
    pub faults: Vec<u64>,
    /// Longest usual way of bytes through the network.
    pub network_us_max: u64,
    /// How often bytes are split on their way, in a thousand.
    pub split_per_thousand: u64,
    /// Longest usual way through the mesh.
    pub mesh_us_max: u64,
    /// Frames that a queue of the mesh holds.
    pub mesh_frames_max: usize,
    /// Longest usual disk operation.
    pub disk_us_max: u64,
    /// By lane: so many times as long as that.
    pub disk_factors: Vec<u64>,
    /// Longest usual wait of a woken shard.
    pub wake_us_max: u64,
    /// Requests that a session may make at once.
    pub requests_burst_max: u32,
    /// And a second.
    pub requests_per_second_max: u32,
    /// Bytes that may wait for a connection.
    pub outbound_bytes_max: usize,
    /// The engine's options but for the lane.
    pub engine: EngineOptions,
    /// After the quiet the power fails once more and everything is read again.
    pub crash_at_end: bool,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64, reduction: &Reduction) -> Self {
        let dice = Dice::new(seed, "plan");
        let shards = dice.between(1, 4) as u16;
        let lanes = dice.between(1, u64::from(shards).min(3)) as u8;
        let users = dice.between(2, 5) as usize;
        let mut plan = Self {
            seed,
            shards,
            lanes,
            users,
            clients: clients(&dice, users),
            steps: dice.pick(&[20, 40, 60, 90, 140]),
            step_us_max: dice.pick(&[300, 2_000, 20_000, 200_000]),
            text_bytes_max: dice.pick(&[20, 200, 200, 2_000, 12_000]),
            burst_per_thousand: dice.pick(&[0, 0, 20, 60]),
            removal_per_thousand: dice.pick(&[0, 150, 400]),
            founders_stay: dice.chance(800),
            // Dice of its own: most runs keep all there is, since what can be read says most.
            retain_per_thousand: Dice::new(seed, "retention").pick(&[0, 0, 0, 150, 500]),
            groups_per_thousand: Dice::new(seed, "groups").pick(&[0, 0, 60, 200]),
            contents_per_thousand: Dice::new(seed, "contents").pick(&[0, 0, 150, 500]),
            tells_per_thousand: Dice::new(seed, "tells").pick(&[0, 0, 50, 400]),
            invites_per_thousand: Dice::new(seed, "invites").pick(&[0, 0, 60, 300]),
            accounts_per_thousand: Dice::new(seed, "accounts").pick(&[0, 0, 60, 300]),
            presence_per_thousand: Dice::new(seed, "presence").pick(&[0, 0, 100, 400]),
            devices_per_thousand: Dice::new(seed, "devices").pick(&[0, 0, 30, 150]),
            pushes_at_a_time: Dice::new(seed, "slices").pick(&[1, 2, 256]),
            bodies_members: Dice::new(seed, "bodies").pick(&[1, 2, 4, 10_000]),
            hint_ms: Dice::new(seed, "hints").pick(&[10, 200, 3_000]),
            views_per_thousand: Dice::new(seed, "views").pick(&[30, 100, 400]),
            large_members: Dice::new(seed, "large").pick(&[1, 2, 100]),
            faults: faults(seed, &dice),
            network_us_max: dice.pick(&[50, 1_000, 30_000]),
            split_per_thousand: dice.pick(&[0, 100, 900]),
            mesh_us_max: dice.pick(&[1, 20, 2_000]),
            mesh_frames_max: dice.pick(&[2, 8, 1_024]),
            disk_us_max: dice.pick(&[20, 300, 300, 5_000]),
            disk_factors: vec![1; usize::from(lanes)],
            wake_us_max: dice.pick(&[1, 30, 500]),
            requests_burst_max: dice.pick(&[20, 200, 5_000]),
            requests_per_second_max: dice.pick(&[20, 100, 5_000]),
            outbound_bytes_max: dice.pick(&[300_000, 1_000_000]),
            engine: engine(seed, &dice),
            crash_at_end: dice.chance(500),
        };
        plan.reduce(reduction);
        match plan.rate(Fault::Encrypt) {
            0 => [Fault::Erase, Fault::Rewrap].iter().for_each(|fault| plan.faults[*fault as usize] = 0),
            _ => plan.engine.encryption = Some(plan.node_key(0)),
        }
        if plan.rate(Fault::Scrub) > 0 {
            let dice = Dice::new(seed, "scrub");
            // Segments are some kilobytes: from less than one of them in a second to all of them at once.
            plan.engine.scrub_bytes_per_second = dice.pick(&[2_000, 50_000, 4 << 20]);
            // A disk at rest tells the end of a run: a slow one reads all in less than that.
            plan.engine.scrub_round_ms_min = dice.pick(&[20_000, 60_000]);
        }
        if reduction.text_only {
            plan.contents_per_thousand = 0;
            (plan.tells_per_thousand, plan.invites_per_thousand, plan.accounts_per_thousand) = (0, 0, 0);
            (plan.presence_per_thousand, plan.devices_per_thousand) = (0, 0);
        }
        if plan.rate(Fault::UnequalDisks) > 0 {
            let dice = Dice::new(seed, "unequal disks");
            plan.disk_factors.iter_mut().for_each(|factor| *factor = dice.pick(&[1, 1, 10, 100]));
        }
        plan
    }

    /// The engine's options of one start: of some, others than the seed's, if the plan has that.
    #[must_use]
    pub fn engine_at(&self, incarnation: u64) -> EngineOptions {
        let dice = Dice::new(self.seed ^ (incarnation << 32), "settings");
        if !dice.chance(10 * self.rate(Fault::Reconfigure)) {
            return self.engine.clone();
        }
        EngineOptions {
            log_file_bytes: dice.pick(&[512, 576, 640, 1_024]) * 1024,
            log_files_max: dice.between(3, 6) as u32,
            memtable_bytes: dice.pick(&[2_000, 20_000, 100_000, 1_000_000]),
            memtable_age_ms_max: dice.pick(&[500, 5_000, 600_000]),
            cache_bytes: dice.pick(&[0, 64 * 1024, 1024 * 1024]),
            tails_max: dice.pick(&[1, 4, 1_000]),
            reads_in_flight_max: dice.pick(&[1, 2, 64]),
            ..self.engine.clone()
        }
    }

    /// The node key of an encrypted store after so many others.
    #[must_use]
    pub fn node_key(&self, number: u64) -> NodeKey {
        let dice = Dice::new(self.seed ^ number, "node key");
        let mut bytes = [0; NodeKey::BYTES];
        bytes.as_chunks_mut().0.iter_mut().for_each(|chunk: &mut [u8; 8]| *chunk = dice.number().to_le_bytes());
        NodeKey::new(bytes)
    }

    /// What tools are given of a lane: with the node's key, if the store is encrypted.
    #[must_use]
    pub fn access(&self, lane: u16) -> Access {
        let random = MemoryRandom::new(self.seed ^ u64::from(lane));
        self.engine.encryption.clone().map_or(lane.into(), |key| Access::with_key(lane, key, &random))
    }

    /// How often a step is this fault, in a thousand.
    #[must_use]
    pub fn rate(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }

    /// Stored data may be destroyed in this run.
    #[must_use]
    pub fn has_rot(&self) -> bool {
        Fault::ALL.iter().any(|fault| fault.is_rot() && self.rate(*fault) > 0)
    }

    /// Reads may give wrong bytes in this run, though nothing is destroyed.
    #[must_use]
    pub fn has_misreads(&self) -> bool {
        self.rate(Fault::MisdirectRead) > 0
    }

    /// The disk may refuse operations in this run.
    #[must_use]
    pub fn has_disk_errors(&self) -> bool {
        Fault::ALL.iter().any(|fault| fault.is_disk_error() && self.rate(*fault) > 0)
    }

    fn reduce(&mut self, reduction: &Reduction) {
        for (index, rate) in self.faults.iter_mut().enumerate() {
            if reduction.without & (1 << index) != 0 {
                *rate = 0;
            }
        }
        if reduction.steps_max > 0 {
            self.steps = self.steps.min(reduction.steps_max);
        }
        if reduction.clients_max > 0 {
            self.clients.truncate(reduction.clients_max as usize);
        }
        if reduction.one_lane {
            (self.shards, self.lanes) = (1, 1);
            self.faults[Fault::Relane as usize] = 0;
        }
    }
}

fn clients(dice: &Dice, users: usize) -> Vec<ClientPlan> {
    let json_per_thousand = dice.pick(&[0, 500, 1_000]);
    let delivers_per_thousand = dice.pick(&[0, 500]);
    let client = |user, device, twin| ClientPlan {
        user,
        device,
        twin,
        json: dice.chance(json_per_thousand),
        delivers: dice.chance(delivers_per_thousand),
    };
    let mut clients: Vec<ClientPlan> = (0..users).map(|user| client(user, 0, false)).collect();
    for user in 0..users {
        if dice.chance(250) {
            clients.push(client(user, 1, false));
        }
    }
    if dice.chance(300) {
        clients.push(client(dice.index(users), 0, true));
    }
    clients
}

/// A third of the faults or fewer, so that runs are about something.
fn faults(seed: u64, dice: &Dice) -> Vec<u64> {
    // A run is about rot, or about a disk that fails, or about neither: each judges by other rules.
    let theme = dice.below(100);
    let (rot, errors) = (theme < 14, (14..38).contains(&theme));
    let share = dice.pick(&[0, 200, 400]);
    let rate = |fault: &Fault| {
        let (allowed, chosen_per_thousand, rates) = match fault {
            fault if fault.is_rot() => (rot, 500, [10, 30, 80]),
            fault if fault.is_disk_error() => (errors, 500, [20, 60, 120]),
            // What everything is about.
            Fault::Crash => (true, 400, [10, 30, 80]),
            Fault::Kill => (true, 200, [10, 30, 80]),
            _ => (true, share, [5, 15, 40]),
        };
        let chosen = dice.chance(chosen_per_thousand);
        let rate = dice.pick(&rates);
        if allowed && chosen { rate } else { 0 }
    };
    let mut faults: Vec<u64> = Fault::ALL.iter().take(FIRST_FAULTS).map(rate).collect();
    faults.extend(later_faults(&Dice::new(seed, "later faults"), rot, errors));
    faults
}

/// The rates of the faults that came later.
fn later_faults(dice: &Dice, rot: bool, errors: bool) -> Vec<u64> {
    // Reads go astray in runs of their own: nothing is lost by them, and that is held to.
    let misreads = dice.chance(120) && !rot && !errors;
    let share = dice.pick(&[0, 0, 200, 400]);
    let rate = |fault: &Fault| {
        let (allowed, chosen_per_thousand, rates) = match fault {
            Fault::MisdirectWrite | Fault::FlipBatch => (rot, 400, [10, 30, 80]),
            // A lane with one is not opened any more, so that a run ends with it.
            Fault::BreakLog => (rot, 80, [5, 10, 20]),
            Fault::MisdirectRead => (misreads, 1_000, [20, 60, 120]),
            Fault::LateWrite => (errors, 300, [20, 60, 120]),
            Fault::Reconfigure => (true, share / 2, [20, 50, 80]),
            Fault::UnequalDisks => (true, share / 2, [1, 1, 1]),
            Fault::Relane => (!rot && !errors && !misreads, share / 2, [20, 50, 80]),
            Fault::Checkpoint => (true, 250, [10, 30, 80]),
            Fault::Scrub => (true, 250, [1, 1, 1]),
            Fault::Encrypt => (true, 250, [1, 1, 1]),
            // Of encrypted stores only.
            Fault::Erase | Fault::Rewrap => (true, 400, [20, 50, 80]),
            _ => (true, share, [5, 15, 40]),
        };
        let chosen = dice.chance(chosen_per_thousand);
        let rate = dice.pick(&rates);
        if allowed && chosen { rate } else { 0 }
    };
    Fault::ALL.iter().skip(FIRST_FAULTS).map(rate).collect()
}

fn engine(seed: u64, dice: &Dice) -> EngineOptions {
    // Dice of its own, so that what older seeds pick stays as it was.
    let limits = Dice::new(seed, "limits");
    EngineOptions {
        log_file_bytes: dice.pick(&[512, 640]) * 1024,
        log_files_max: dice.between(3, 5) as u32,
        memtable_bytes: dice.pick(&[2_000, 20_000, 100_000, 1_000_000]),
        memtable_age_ms_max: dice.pick(&[500, 5_000, 600_000]),
        cache_bytes: dice.pick(&[0, 64 * 1024, 1024 * 1024]),
        conversations_bytes_max: dice.pick(&[1, 4_000, 1_000_000]),
        tails_max: dice.pick(&[1, 4, 1_000]),
        batch_bytes_max: 256 * 1024,
        reads_in_flight_max: dice.pick(&[1, 2, 64]),
        conversations_per_user_max: limits.pick(&[1, 2, 4, 5_000, 5_000, 5_000, 5_000, 5_000]),
        user_counts_max: limits.pick(&[1, 3, 1_000]),
        commands_waiting_max: dice.pick(&[8, 1_000]),
        commands_waiting_per_conversation_max: dice.pick(&[4, 1_000]),
        ..EngineOptions::new(0)
    }
}

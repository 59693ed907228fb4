//! One of every frame and of every kind of entry, and a second where a frame has two faces. Golden files are made of these: a change
//! here is a change of the protocol's vectors.

use antiphon_wire::{
    codes::ErrorCode,
    frame::*,
    ids::{ClientMessageId, ConversationId, DeviceId, Epoch, LanePosition, Ordinal, Sequence, TimestampMs, UserId},
    position::Position,
};

const NAME: ClientMessageId = ClientMessageId([0x5e; 16]);

pub(crate) fn requests() -> Vec<(&'static str, Request)> {
    let (conversation, sequence) = (conversation(), Sequence(41));
    let known = vec![Known { conversation, epoch: Epoch(1), sequence }];
    let group = CreateGroup { key: NAME, title: "Choir".to_owned(), members: vec![user("bob"), user("carol")] };
    let members = |action| Request::Members(Members { conversation, action });
    let history =
        |before, after, around, limit| Request::History(History { conversation, before, after, around, limit });
    let edit = Edit { conversation, client_message_id: NAME, target: sequence, content: Content::text("Hi 🎶") };
    let react =
        React { conversation, client_message_id: NAME, target: sequence, reaction: "👍".to_owned(), on: true };
    vec![
        (
            "connect",
            Request::Connect(Connect {
                token: Some("header.payload.signature".to_owned()),
                device: Some(device()),
                resume: Some(Resume { position: position(), known }),
                client: Some(ClientInfo { name: "antiphon-web".to_owned(), version: "1.4.0".to_owned() }),
            }),
        ),
        ("connect-bare", Request::Connect(Connect { token: None, device: None, resume: None, client: None })),
        ("ping", Request::Ping(Ping {})),
        ("create-direct", Request::Create(Create::Direct(user("bob")))),
        ("create-group", Request::Create(Create::Group(group))),
        ("members-add", members(MembersAction::Add(vec![user("dave")]))),
        ("members-remove", members(MembersAction::Remove(vec![user("bob")]))),
        ("members-list", members(MembersAction::List(MembersList { after: Some(user("bob")), limit: Some(50) }))),
        ("conversations", Request::Conversations(Conversations { after: Some(conversation), limit: Some(50) })),
        ("title", Request::Title(Title { conversation, title: "Große Probe".to_owned() })),
        (
            "send",
            Request::Send(Send { conversation, client_message_id: NAME, content: Content::text("Hi \"Bob\" 🎵") }),
        ),
        ("send-fields", Request::Send(Send { conversation, client_message_id: NAME, content: said() })),
        ("send-data", Request::Send(Send { conversation, client_message_id: NAME, content: picture() })),
        ("history-before", history(Some(sequence), None, None, Some(50))),
        ("history-after", history(None, Some(sequence), None, Some(200))),
        ("history-around", history(None, None, Some(sequence), None)),
        ("read", Request::Read(Read { conversation, sequence })),
        ("delivered", Request::Delivered(Delivered { conversation, sequence })),
        ("edit", Request::Edit(edit)),
        ("delete", Request::Delete(Delete { conversation, client_message_id: NAME, target: sequence })),
        ("react", Request::React(react)),
        ("pin", Request::Pin(Pin { conversation, client_message_id: NAME, target: sequence, on: true })),
        ("retain", Request::Retain(Retain { conversation, client_message_id: NAME, before: sequence })),
        (
            "reactions",
            Request::Reactions(Reactions { conversation, target: sequence, after: Some(user("bob")), limit: Some(50) }),
        ),
        ("pins", Request::Pins(Pins { conversation })),
        ("roles-set", Request::Roles(Roles { conversation, action: RolesAction::Set(roles()) })),
        ("roles-list", Request::Roles(Roles { conversation, action: RolesAction::List(users_page()) })),
        ("settings", Request::Settings(AskSettings { conversation, set: None })),
        ("settings-set", Request::Settings(AskSettings { conversation, set: Some(settings_change()) })),
        ("bans-add", Request::Bans(AskBans { conversation, action: BansAction::Add(vec![user("mallory")]) })),
        ("bans-remove", Request::Bans(AskBans { conversation, action: BansAction::Remove(vec![user("mallory")]) })),
        ("bans-list", Request::Bans(AskBans { conversation, action: BansAction::List(users_page()) })),
        ("event", Request::Event(SendEvent { conversation, event: "typing".to_owned(), data: None })),
        ("event-data", Request::Event(SendEvent { conversation, event: "score.page".to_owned(), data: page() })),
        ("refresh", Request::Refresh(Refresh { token: "header.payload.signature".to_owned() })),
        ("invites-make", invites(InvitesAction::Make(MakeInvite { expires_in_s: Some(86_400), uses: Some(5) }))),
        ("invites-make-bare", invites(InvitesAction::Make(MakeInvite::default()))),
        ("invites-revoke", invites(InvitesAction::Revoke(vec![Sequence(17), Sequence(18)]))),
        ("invites-list", invites(InvitesAction::List(InvitesPage { after: Some(Sequence(16)), limit: Some(50) }))),
        ("join", Request::Join(Join { code: code(), look: false })),
        ("join-look", Request::Join(Join { code: code(), look: true })),
        ("account-set", account(AccountAction::Set(set_account(Some(draft()), Some(Sequence(3)))))),
        ("account-take-away", account(AccountAction::Set(set_account(None, None)))),
        (
            "account-list",
            account(AccountAction::List(AccountPage { after: Some("draft".to_owned()), limit: Some(50) })),
        ),
        (
            "presence",
            Request::Presence(WatchPresence { watch: vec![user("bob"), user("carol")], unwatch: vec![user("dave")] }),
        ),
        ("presence-bare", Request::Presence(WatchPresence::default())),
        ("view-open", Request::View(View { conversation, open: true })),
        ("view-close", Request::View(View { conversation, open: false })),
        ("devices-list", devices(DevicesAction::List(ListDevices {}))),
        ("devices-name", devices(DevicesAction::Name("Alice's phone 📱".to_owned()))),
        ("devices-revoke", devices(DevicesAction::Revoke(vec![device_named("laptop"), device_named("tablet")]))),
        ("devices-revoke-all", devices(DevicesAction::RevokeAll(RevokeAll { but_this: false }))),
        ("devices-revoke-others", devices(DevicesAction::RevokeAll(RevokeAll { but_this: true }))),
    ]
}

fn seen(name: &str, online: bool, last_seen_ms: Option<u64>) -> UserPresence {
    UserPresence { user: user(name), online, last_seen_ms: last_seen_ms.map(TimestampMs) }
}

fn devices(action: DevicesAction) -> Request {
    Request::Devices(Devices { action })
}

fn device_named(name: &str) -> DeviceId {
    DeviceId::new(name).expect("a device id")
}

fn listed_devices() -> DevicesAnswer {
    let phone = Device {
        device: device_named("phone"),
        name: Some("Alice's phone 📱".to_owned()),
        since_ms: Some(TimestampMs(1_700_000_000_000)),
        online: true,
        this: true,
    };
    let laptop = Device { device: device_named("laptop"), name: None, since_ms: None, online: true, this: false };
    DevicesAnswer { sequence: None, devices: Some(vec![laptop, phone]) }
}

fn account(action: AccountAction) -> Request {
    Request::Account(Account { action })
}

fn account_key() -> String {
    format!("draft:{}", conversation())
}

fn draft() -> JsonText {
    JsonText(r#"{"text":"See you 🎶"}"#.to_owned())
}

fn set_account(value: Option<JsonText>, if_sequence: Option<Sequence>) -> SetAccount {
    SetAccount { key: account_key(), value, if_sequence }
}

fn page() -> Option<JsonText> {
    Some(JsonText(r#"{"page":[4,"verso"]}"#.to_owned()))
}

/// All that can stand beside text.
fn said() -> Content {
    let mentions = mentions_to_bytes(&[user("bob"), user("carol")]);
    let view = ContentView {
        text: Some("See below 🎶"),
        data: Some(Data { content_type: "application/vnd.choir+json", bytes: br#"{"bars":[1,2],"key":"d"}"# }),
        reply_to: Some(Sequence(40)),
        thread: Some(Sequence(2)),
        forwarded: Some(Place { conversation: ConversationId([7; 16]), sequence: Sequence(9) }),
        mentions: Mentions::new(&mentions),
        everybody: true,
    };
    view.to_content()
}

/// Data alone.
fn picture() -> Content {
    let data = Some(Data { content_type: "image/x-tiny", bytes: &[0, 255, 16] });
    ContentView { data, ..ContentView::default() }.to_content()
}

fn roles() -> Vec<RoleOf> {
    let of = |name, role| RoleOf { user: user(name), role };
    vec![of("bob", Role::Admin), of("carol", Role::Reader)]
}

fn users_page() -> UsersPage {
    UsersPage { after: Some(user("bob")), limit: Some(50) }
}

fn settings_change() -> SettingsChange {
    let description = Some("We sing on Tuesdays 🎶".to_owned());
    SettingsChange { description, history: Some(HistoryFrom::Start), send: Some(Who::Admins), ..Default::default() }
}

pub(crate) fn server() -> Vec<(&'static str, ServerFrame)> {
    let mut frames = answers();
    frames.extend(pushes());
    frames
}

pub(crate) fn entries() -> Vec<(&'static str, Entry)> {
    let entry = |kind, sequence, client_message_id, body| Entry {
        conversation: conversation(),
        epoch: Epoch(1),
        sequence: Sequence(sequence),
        ordinal: Ordinal(sequence / 2),
        time_ms: TimestampMs(1_700_000_000_000 + sequence),
        kind,
        client_message_id,
        sender: user("alice"),
        body,
    };
    let none = ClientMessageId([0; 16]);
    let members = vec![user("alice"), user("bob"), user("carol")];
    let start = ConversationStart { direct: false, title: "Choir".to_owned(), members };
    let change = MembershipChange { added: vec![user("dave")], removed: vec![] };
    let target = Sequence(2);
    let changed = |sequence, change: Change| entry(change.kind(), sequence, NAME, change.to_body(Ordinal(1)));
    let joined = Joined { invite: Sequence(17), user: user("alice") };
    vec![
        ("created", entry(EntryKind::Created, 1, none, start.to_body())),
        ("message", entry(EntryKind::Message, 2, NAME, Content::text("Hi \"Bob\" 🎵").0)),
        ("membership", entry(EntryKind::Membership, 3, none, change.to_body())),
        ("title", entry(EntryKind::Title, 4, none, "Große Probe".as_bytes().to_vec())),
        ("edit", changed(5, Change::Edit { target, content: Content::text("Hi 🎶") })),
        ("edit-taken-away", changed(6, Change::Edit { target, content: Content(Vec::new()) })),
        ("reaction", changed(7, Change::React { target, text: "👍".to_owned(), on: true })),
        ("pin", changed(8, Change::Pin { target, on: false })),
        ("deletion", changed(9, Change::Delete { target })),
        ("message-taken-away", entry(EntryKind::Message, 2, NAME, Vec::new())),
        ("retention", changed(10, Change::Retain { before: Sequence(3) })),
        ("roles", entry(EntryKind::Roles, 11, none, roles_to_body(&roles()))),
        (
            "settings",
            entry(EntryKind::Settings, 12, none, settings_change().applied_to(&Settings::default()).to_body()),
        ),
        ("bans", entry(EntryKind::Bans, 13, none, bans(true))),
        ("bans-lifted", entry(EntryKind::Bans, 14, none, bans(false))),
        ("invite", entry(EntryKind::Invite, 17, none, made().to_body())),
        ("invites-revoked", entry(EntryKind::Invite, 19, none, InviteChange::Revoked(vec![Sequence(17)]).to_body())),
        ("joined", entry(EntryKind::Joined, 18, none, joined.to_body())),
        ("account-data", entry(EntryKind::AccountData, 20, none, account_change(Some(draft())))),
        ("account-data-taken-away", entry(EntryKind::AccountData, 21, none, account_change(None))),
        ("message-fields", entry(EntryKind::Message, 15, NAME, said().0)),
        ("message-data", entry(EntryKind::Message, 16, NAME, picture().0)),
    ]
}

fn account_change(value: Option<JsonText>) -> Vec<u8> {
    AccountChange { key: account_key(), value }.to_body()
}

fn account_answer() -> AccountAnswer {
    let (conversation, epoch) = (ConversationId::account(&user("alice")), Epoch(1));
    AccountAnswer { conversation, epoch, sequence: Sequence(20), replaced: None, items: None, next: None }
}

fn listed_account() -> AccountAnswer {
    let item = |key, value, sequence| AccountItem {
        key,
        value,
        sequence: Sequence(sequence),
        time_ms: TimestampMs(1_700_000_000_000),
    };
    let items = vec![item(account_key(), draft(), 20), item("theme".to_owned(), JsonText("\"dark\"".to_owned()), 4)];
    AccountAnswer { items: Some(items), next: Some("theme".to_owned()), ..account_answer() }
}

fn invites(action: InvitesAction) -> Request {
    Request::Invites(Invites { conversation: conversation(), action })
}

fn code() -> InviteCode {
    InviteCode { conversation: conversation(), secret: *b"a secret of 16 B" }
}

fn made() -> InviteChange {
    let expires_ms = Some(TimestampMs(1_700_086_400_000));
    InviteChange::Made { hash: code().hash(), expires_ms, uses: Some(5) }
}

fn bans(on: bool) -> Vec<u8> {
    Bans { on, users: vec![(user("bob"), on), (user("mallory"), false)] }.to_body()
}

fn answers() -> Vec<(&'static str, ServerFrame)> {
    let (conversation, sequence) = (conversation(), Sequence(41));
    let marked = || Marked { read: sequence, delivered: Sequence(42), unread: 3 };
    let members = vec![Member { user: user("bob"), role: Role::Admin, read: Sequence(40), delivered: sequence }];
    let summary = Summary {
        conversation,
        epoch: Epoch(1),
        direct: None,
        title: "Choir".to_owned(),
        picture: "choir.png".to_owned(),
        role: Role::Owner,
        last_sequence: Sequence(2),
        last_time_ms: TimestampMs(1_700_000_000_002),
        members: 3,
        read: Sequence(1),
        unread: 1,
        last: Some(bytes("message")),
    };
    let welcome = Welcome {
        user: user("alice"),
        device: device(),
        session: "3-17".to_owned(),
        time_ms: TimestampMs(1_700_000_000_000),
        heartbeat_interval_ms: 30_000,
        resume: ResumeOutcome::Resuming,
        limits: Limits {
            frame_bytes_max: 131_072,
            text_bytes_max: 16_384,
            members_per_request_max: 100,
            group_members_max: 1_000,
            page_items_max: 200,
            requests_per_second_max: 50,
        },
    };
    let history = HistoryAnswer {
        conversation,
        epoch: Epoch(1),
        first: Sequence(1),
        last: Sequence(4),
        entries: entries().iter().take(4).map(|(_, entry)| EntryBytes(entry.to_archive().to_vec())).collect(),
    };
    let ack = |duplicate| {
        ServerFrame::Ack(Ack { sequence, ordinal: Ordinal(39), time_ms: TimestampMs(1_700_000_000_041), duplicate })
    };
    let change = || Ack { sequence, ordinal: Ordinal(39), time_ms: TimestampMs(1_700_000_000_041), duplicate: false };
    let reactors = vec![Reactor { user: user("bob"), reactions: vec!["👍".to_owned(), "ok".to_owned()] }];
    let changed = MembersAnswer { sequence: Some(sequence), members: None, next: None };
    let listed = MembersAnswer { sequence: None, members: Some(members), next: Some(user("bob")) };
    vec![
        ("welcome", ServerFrame::Welcome(welcome)),
        ("pong", ServerFrame::Pong(Pong { time_ms: TimestampMs(1_700_000_000_000), position: Some(position()) })),
        (
            "created",
            ServerFrame::Created(Created { conversation, epoch: Epoch(1), sequence: Sequence(1), existing: false }),
        ),
        ("members-changed", ServerFrame::MembersAnswer(changed)),
        ("members-listed", ServerFrame::MembersAnswer(listed)),
        (
            "conversations",
            ServerFrame::ConversationsAnswer(ConversationsAnswer {
                conversations: vec![summary],
                next: Some(conversation),
            }),
        ),
        ("title", ServerFrame::TitleAnswer(TitleAnswer { sequence })),
        ("ack", ack(false)),
        ("ack-duplicate", ack(true)),
        ("history", ServerFrame::HistoryAnswer(history)),
        ("read", ServerFrame::ReadAnswer(marked())),
        ("delivered", ServerFrame::DeliveredAnswer(marked())),
        ("edit", ServerFrame::EditAnswer(change())),
        ("delete", ServerFrame::DeleteAnswer(change())),
        ("react", ServerFrame::ReactAnswer(change())),
        ("pin", ServerFrame::PinAnswer(change())),
        ("retain", ServerFrame::RetainAnswer(change())),
        ("reactions", ServerFrame::ReactionsAnswer(ReactionsAnswer { reactions: reactors, next: Some(user("bob")) })),
        ("pins", ServerFrame::PinsAnswer(PinsAnswer { pins: vec![sequence, Sequence(2)] })),
        ("roles-changed", ServerFrame::RolesAnswer(RolesAnswer { sequence: Some(sequence), roles: None, next: None })),
        (
            "roles-listed",
            ServerFrame::RolesAnswer(RolesAnswer { sequence: None, roles: Some(roles()), next: Some(user("carol")) }),
        ),
        (
            "settings",
            ServerFrame::SettingsAnswer(SettingsAnswer {
                sequence,
                settings: settings_change().applied_to(&Settings::default()),
                role: Role::Owner,
            }),
        ),
        ("bans-changed", ServerFrame::BansAnswer(BansAnswer { sequence: Some(sequence), users: None, next: None })),
        ("event-sent", ServerFrame::EventAnswer(EventSent {})),
        ("account-set", ServerFrame::AccountAnswer(AccountAnswer { replaced: Some(Sequence(3)), ..account_answer() })),
        ("account-set-first", ServerFrame::AccountAnswer(account_answer())),
        ("account-listed", ServerFrame::AccountAnswer(listed_account())),
        (
            "presence",
            ServerFrame::PresenceAnswer(PresenceAnswer {
                users: vec![seen("bob", true, None), seen("carol", false, Some(1_700_000_000_000))],
                watching: 2,
            }),
        ),
        ("view-open", ServerFrame::ViewAnswer(ViewAnswer { sequence: Some(Sequence(44)) })),
        ("view-close", ServerFrame::ViewAnswer(ViewAnswer { sequence: None })),
        ("devices-changed", ServerFrame::DevicesAnswer(DevicesAnswer { sequence: Some(sequence), devices: None })),
        ("devices-listed", ServerFrame::DevicesAnswer(listed_devices())),
        ("invites-made", ServerFrame::InvitesAnswer(InvitesAnswer { code: Some(code()), ..changed_invites() })),
        ("invites-changed", ServerFrame::InvitesAnswer(changed_invites())),
        ("invites-listed", ServerFrame::InvitesAnswer(listed_invites())),
        ("joined", ServerFrame::JoinAnswer(join_answer(Some(Sequence(18))))),
        ("looked", ServerFrame::JoinAnswer(join_answer(None))),
        ("refreshed", ServerFrame::RefreshAnswer(Refreshed { expires_ms: Some(TimestampMs(1_700_003_600_000)) })),
        ("refreshed-for-good", ServerFrame::RefreshAnswer(Refreshed { expires_ms: None })),
        (
            "bans-listed",
            ServerFrame::BansAnswer(BansAnswer { sequence: None, users: Some(vec![user("mallory")]), next: None }),
        ),
    ]
}

fn changed_invites() -> InvitesAnswer {
    InvitesAnswer { sequence: Some(Sequence(17)), ..InvitesAnswer::default() }
}

fn listed_invites() -> InvitesAnswer {
    let expires_ms = Some(TimestampMs(1_700_086_400_000));
    let one = Invite { invite: Sequence(17), user: user("bob"), expires_ms, uses: Some(4) };
    let other = Invite { invite: Sequence(20), user: user("bob"), expires_ms: None, uses: None };
    InvitesAnswer { invites: Some(vec![one, other]), next: Some(Sequence(20)), ..InvitesAnswer::default() }
}

fn join_answer(sequence: Option<Sequence>) -> JoinAnswer {
    JoinAnswer {
        conversation: conversation(),
        epoch: Epoch(1),
        title: "Choir".to_owned(),
        description: "We sing on Mondays".to_owned(),
        picture: String::new(),
        members: 41,
        sequence,
    }
}

fn pushes() -> Vec<(&'static str, ServerFrame)> {
    let conversation = conversation();
    let error =
        ErrorFrame { code: ErrorCode::RateLimited, text: "50 requests a second".to_owned(), retry_after_ms: Some(120) };
    let receipt = Receipt { conversation, user: user("bob"), read: Sequence(40), delivered: Sequence(41) };
    let too_far = TooFar { conversation, epoch: Epoch(1), first: Sequence(1), last: Sequence(5_000) };
    let count = |reaction: &str, count, mine| ReactionCount { reaction: reaction.to_owned(), count, mine };
    let edited = Some(Edited { sequence: Sequence(5), time_ms: TimestampMs(1_700_000_000_005) });
    let reactions = vec![count("👍", 3, true), count("ok", 1, false)];
    let changed = MessageState { sequence: Sequence(2), edited, deleted: false, pinned: true, replies: 3, reactions };
    let gone = MessageState {
        sequence: Sequence(3),
        edited: None,
        deleted: true,
        pinned: false,
        replies: 0,
        reactions: Vec::new(),
    };
    let states = States { conversation, epoch: Epoch(1), as_of: Sequence(9), states: vec![changed, gone] };
    let (time_ms, ordinal) = (TimestampMs(1_700_000_000_090), Ordinal(80));
    let advanced = Advanced { conversation, epoch: Epoch(1), sequence: Sequence(90), ordinal, time_ms };
    let goodbye = Goodbye { code: 4_000, reason: "restarting".to_owned(), reconnect_after_ms: Some(1_500) };
    vec![
        ("error", ServerFrame::Error(error)),
        ("message", ServerFrame::Message(bytes("message"))),
        ("message-created", ServerFrame::Message(bytes("created"))),
        ("message-membership", ServerFrame::Message(bytes("membership"))),
        ("message-title", ServerFrame::Message(bytes("title"))),
        ("message-edit", ServerFrame::Message(bytes("edit"))),
        ("message-edit-taken-away", ServerFrame::Message(bytes("edit-taken-away"))),
        ("message-reaction", ServerFrame::Message(bytes("reaction"))),
        ("message-pin", ServerFrame::Message(bytes("pin"))),
        ("message-deletion", ServerFrame::Message(bytes("deletion"))),
        ("message-taken-away", ServerFrame::Message(bytes("message-taken-away"))),
        ("message-retention", ServerFrame::Message(bytes("retention"))),
        ("message-roles", ServerFrame::Message(bytes("roles"))),
        ("message-settings", ServerFrame::Message(bytes("settings"))),
        ("message-bans", ServerFrame::Message(bytes("bans"))),
        ("message-bans-lifted", ServerFrame::Message(bytes("bans-lifted"))),
        ("message-invite", ServerFrame::Message(bytes("invite"))),
        ("message-account-data", ServerFrame::Message(bytes("account-data"))),
        ("message-invites-revoked", ServerFrame::Message(bytes("invites-revoked"))),
        ("message-joined", ServerFrame::Message(bytes("joined"))),
        ("receipt", ServerFrame::Receipt(receipt)),
        ("left", ServerFrame::Left(Left { conversation, sequence: Sequence(41) })),
        ("too-far", ServerFrame::TooFar(too_far)),
        ("caught-up", ServerFrame::CaughtUp(CaughtUp { position: position() })),
        ("goodbye", ServerFrame::Goodbye(goodbye)),
        ("states", ServerFrame::States(states)),
        ("happened", happened("typing", None)),
        ("happened-data", happened("score.page", page())),
        ("expiring", ServerFrame::Expiring(Expiring { expires_ms: TimestampMs(1_700_003_600_000) })),
        (
            "present",
            ServerFrame::Present(Present {
                users: vec![seen("bob", false, Some(1_700_000_000_000)), seen("dave", true, None)],
            }),
        ),
        ("advanced", ServerFrame::Advanced(advanced)),
        ("mentioned", ServerFrame::Mentioned(bytes("message"))),
    ]
}

fn happened(event: &str, data: Option<JsonText>) -> ServerFrame {
    ServerFrame::Event(Event { conversation: conversation(), user: user("bob"), event: event.to_owned(), data })
}

fn bytes(kind: &str) -> EntryBytes {
    let entries = entries();
    let (_, entry) = entries.iter().find(|(name, _)| *name == kind).expect("there is one of every kind");
    EntryBytes(entry.to_archive().to_vec())
}

fn conversation() -> ConversationId {
    ConversationId::direct(&user("alice"), &user("bob"))
}

fn user(name: &str) -> UserId {
    UserId::new(name).unwrap()
}

fn device() -> DeviceId {
    DeviceId::new("6f9619ff-8b86-d011-b42d-00c04fc964ff").unwrap()
}

fn position() -> PositionBytes {
    PositionBytes(Position { store: 0x0123_4567_89ab_cdef, lanes: vec![LanePosition(77)] }.to_bytes())
}

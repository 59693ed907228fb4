//! Any frame that is within the protocol's limits.

use antiphon_wire::{
    codes::ErrorCode,
    frame::*,
    ids::{ClientMessageId, ConversationId, DeviceId, Epoch, Ordinal, Sequence, TimestampMs, UserId},
    limits::{EVENT_DATA_BYTES_MAX, JSON_INTEGER_MAX},
};
use proptest::{collection::vec, option, prelude::*};

pub(crate) fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        connect().prop_map(Request::Connect),
        Just(Request::Ping(Ping {})),
        user().prop_map(|user| Request::Create(Create::Direct(user))),
        (name(), title(), vec(user(), 0..5))
            .prop_map(|(key, title, members)| Request::Create(Create::Group(CreateGroup { key, title, members }))),
        (conversation(), members_action())
            .prop_map(|(conversation, action)| Request::Members(Members { conversation, action })),
        (option::of(conversation()), limit())
            .prop_map(|(after, limit)| Request::Conversations(Conversations { after, limit })),
        (conversation(), title()).prop_map(|(conversation, title)| Request::Title(Title { conversation, title })),
        (conversation(), name(), text()).prop_map(|(conversation, client_message_id, text)| {
            Request::Send(Send { conversation, client_message_id, content: Content::text(&text) })
        }),
        history().prop_map(Request::History),
        (conversation(), sequence())
            .prop_map(|(conversation, sequence)| Request::Read(Read { conversation, sequence })),
        (conversation(), sequence())
            .prop_map(|(conversation, sequence)| Request::Delivered(Delivered { conversation, sequence })),
        (conversation(), name(), change()).prop_map(|(conversation, client_message_id, change)| match change {
            Change::Edit { target, content } => {
                let content = content.view().unwrap().in_place_of(&ContentView::default()).to_content();
                Request::Edit(Edit { conversation, client_message_id, target, content })
            }
            Change::Delete { target } => Request::Delete(Delete { conversation, client_message_id, target }),
            Change::React { target, text: reaction, on } => {
                Request::React(React { conversation, client_message_id, target, reaction, on })
            }
            Change::Pin { target, on } => Request::Pin(Pin { conversation, client_message_id, target, on }),
            Change::Retain { before } => Request::Retain(Retain { conversation, client_message_id, before }),
        }),
        (conversation(), target(), option::of(user()), limit()).prop_map(|(conversation, target, after, limit)| {
            Request::Reactions(Reactions { conversation, target, after, limit })
        }),
        conversation().prop_map(|conversation| Request::Pins(Pins { conversation })),
        (conversation(), roles(1)).prop_map(|(conversation, roles)| {
            Request::Roles(Roles { conversation, action: RolesAction::Set(roles) })
        }),
        (conversation(), users_page()).prop_map(|(conversation, list)| {
            Request::Roles(Roles { conversation, action: RolesAction::List(list) })
        }),
        (conversation(), option::of(settings_change()))
            .prop_map(|(conversation, set)| Request::Settings(AskSettings { conversation, set })),
        (conversation(), bans_action())
            .prop_map(|(conversation, action)| Request::Bans(AskBans { conversation, action })),
        (conversation(), "[!-~]{1,32}", option::of(json_text()))
            .prop_map(|(conversation, event, data)| Request::Event(SendEvent { conversation, event, data })),
        text().prop_map(|token| Request::Refresh(Refresh { token })),
        (conversation(), invites_action())
            .prop_map(|(conversation, action)| Request::Invites(Invites { conversation, action })),
        (code(), any::<bool>()).prop_map(|(code, look)| Request::Join(Join { code, look })),
        (account_key(), option::of(json_text()), option::of(sequence())).prop_map(|(key, value, if_sequence)| {
            Request::Account(Account { action: AccountAction::Set(SetAccount { key, value, if_sequence }) })
        }),
        (option::of(account_key()), limit()).prop_map(|(after, limit)| {
            Request::Account(Account { action: AccountAction::List(AccountPage { after, limit }) })
        }),
        (vec(user(), 0..4), vec(user(), 0..4))
            .prop_map(|(watch, unwatch)| Request::Presence(WatchPresence { watch, unwatch })),
        (conversation(), any::<bool>()).prop_map(|(conversation, open)| Request::View(View { conversation, open })),
        devices_action().prop_map(|action| Request::Devices(Devices { action })),
    ]
}

fn devices_action() -> impl Strategy<Value = DevicesAction> {
    prop_oneof![
        Just(DevicesAction::List(ListDevices {})),
        device_name().prop_map(DevicesAction::Name),
        proptest::collection::btree_set(device(), 1..4)
            .prop_map(|devices| DevicesAction::Revoke(devices.into_iter().collect())),
        any::<bool>().prop_map(|but_this| DevicesAction::RevokeAll(RevokeAll { but_this })),
    ]
}

fn devices_answer() -> impl Strategy<Value = DevicesAnswer> {
    let one = (device(), option::of(device_name()), option::of(time_ms()), any::<bool>(), any::<bool>());
    let one = one.prop_map(|(device, name, since_ms, online, this)| Device { device, name, since_ms, online, this });
    (option::of(sequence()), option::of(vec(one, 0..4)))
        .prop_map(|(sequence, devices)| DevicesAnswer { sequence, devices })
}

fn device_name() -> impl Strategy<Value = String> {
    "[^\\p{Cc}]{0,16}"
}

fn presences() -> impl Strategy<Value = Vec<UserPresence>> {
    let one = (user(), any::<bool>(), option::of(time_ms()));
    vec(one.prop_map(|(user, online, last_seen_ms)| UserPresence { user, online, last_seen_ms }), 0..4)
}

fn account_key() -> impl Strategy<Value = String> {
    "[!-~]{1,128}"
}

fn account_answer() -> impl Strategy<Value = AccountAnswer> {
    let item = (account_key(), json_text(), sequence(), time_ms())
        .prop_map(|(key, value, sequence, time_ms)| AccountItem { key, value, sequence, time_ms });
    let page = (option::of(vec(item, 0..4)), option::of(account_key()));
    (conversation(), epoch(), sequence(), option::of(sequence()), page).prop_map(
        |(conversation, epoch, sequence, replaced, (items, next))| AccountAnswer {
            conversation,
            epoch,
            sequence,
            replaced,
            items,
            next,
        },
    )
}

fn json_text() -> impl Strategy<Value = JsonText> {
    text()
        .prop_map(|text| JsonText(serde_json::to_string(&[text]).unwrap()))
        .prop_filter("as long as may be", |text| text.0.len() <= EVENT_DATA_BYTES_MAX)
}

/// So many roles at least, in order of users.
fn roles(least: usize) -> impl Strategy<Value = Vec<RoleOf>> {
    proptest::collection::btree_map(user(), role(), least..4)
        .prop_map(|roles| roles.into_iter().map(|(user, role)| RoleOf { user, role }).collect())
}

fn role() -> impl Strategy<Value = Role> {
    proptest::sample::select(&[Role::Owner, Role::Admin, Role::Member, Role::Reader])
}

fn users_page() -> impl Strategy<Value = UsersPage> {
    (option::of(user()), limit()).prop_map(|(after, limit)| UsersPage { after, limit })
}

fn who() -> impl Strategy<Value = Who> {
    proptest::sample::select(&[Who::Members, Who::Admins])
}

fn settings_change() -> impl Strategy<Value = SettingsChange> {
    let history = proptest::sample::select(&[HistoryFrom::Joining, HistoryFrom::Start]);
    let told = (option::of(title()), option::of(title()), option::of(history));
    let rights = std::array::from_fn(|_| option::of(who()));
    (told, rights).prop_map(|((description, picture, history), [send, add, remove, info, pin, everybody])| {
        SettingsChange { description, picture, history, send, add, remove, info, pin, everybody }
    })
}

fn settings() -> impl Strategy<Value = Settings> {
    settings_change().prop_map(|change| change.applied_to(&Settings::default()))
}

fn bans() -> impl Strategy<Value = Bans> {
    let users = proptest::collection::btree_map(user(), any::<bool>(), 1..4);
    (any::<bool>(), users).prop_map(|(on, users)| Bans {
        on,
        users: users.into_iter().map(|(user, removed)| (user, on && removed)).collect(),
    })
}

fn code() -> impl Strategy<Value = InviteCode> {
    (conversation(), any::<[u8; 16]>()).prop_map(|(conversation, secret)| InviteCode { conversation, secret })
}

/// An end and a number of users; none is left out, not nought.
fn bounds() -> impl Strategy<Value = (Option<TimestampMs>, Option<u32>)> {
    (option::of(target().prop_map(|time| TimestampMs(time.0))), option::of(1..=u32::MAX))
}

fn invite_change() -> impl Strategy<Value = InviteChange> {
    let made = (any::<[u8; 32]>(), bounds());
    prop_oneof![
        made.prop_map(|(hash, (expires_ms, uses))| InviteChange::Made { hash: InviteHash(hash), expires_ms, uses }),
        invites().prop_map(InviteChange::Revoked),
    ]
}

fn invites() -> impl Strategy<Value = Vec<Sequence>> {
    proptest::collection::btree_set(target(), 1..4).prop_map(|invites| invites.into_iter().collect())
}

fn invites_action() -> impl Strategy<Value = InvitesAction> {
    prop_oneof![
        (option::of(1..1_000u32), option::of(1..=u32::MAX))
            .prop_map(|(expires_in_s, uses)| InvitesAction::Make(MakeInvite { expires_in_s, uses })),
        invites().prop_map(InvitesAction::Revoke),
        (option::of(target()), limit()).prop_map(|(after, limit)| InvitesAction::List(InvitesPage { after, limit })),
    ]
}

fn invites_answer() -> impl Strategy<Value = InvitesAnswer> {
    let invite = (target(), user(), bounds()).prop_map(|(invite, user, (expires_ms, uses))| Invite {
        invite,
        user,
        expires_ms,
        uses,
    });
    prop_oneof![
        (sequence(), option::of(code())).prop_map(|(sequence, code)| InvitesAnswer {
            sequence: Some(sequence),
            code,
            ..InvitesAnswer::default()
        }),
        (vec(invite, 0..4), option::of(target())).prop_map(|(invites, next)| InvitesAnswer {
            invites: Some(invites),
            next,
            ..InvitesAnswer::default()
        }),
    ]
}

fn join_answer() -> impl Strategy<Value = JoinAnswer> {
    let told = (title(), title(), title());
    (conversation(), epoch(), told, any::<u32>(), option::of(sequence())).prop_map(
        |(conversation, epoch, (title, description, picture), members, sequence)| JoinAnswer {
            conversation,
            epoch,
            title,
            description,
            picture,
            members,
            sequence,
        },
    )
}

fn bans_action() -> impl Strategy<Value = BansAction> {
    prop_oneof![
        vec(user(), 1..5).prop_map(BansAction::Add),
        vec(user(), 1..5).prop_map(BansAction::Remove),
        users_page().prop_map(BansAction::List),
    ]
}

/// Any change of a message.
fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (target(), text()).prop_map(|(target, text)| Change::Edit { target, content: Content::text(&text) }),
        (target(), content(true)).prop_map(|(target, content)| Change::Edit { target, content }),
        target().prop_map(|target| Change::Delete { target }),
        (target(), "\\PC{1,8}", any::<bool>()).prop_map(|(target, text, on)| Change::React { target, text, on }),
        (target(), any::<bool>()).prop_map(|(target, on)| Change::Pin { target, on }),
        target().prop_map(|before| Change::Retain { before }),
    ]
}

fn target() -> impl Strategy<Value = Sequence> {
    (1..=JSON_INTEGER_MAX).prop_map(Sequence)
}

pub(crate) fn server() -> impl Strategy<Value = ServerFrame> {
    prop_oneof![answer(), push()]
}

/// What a message says: text, and any of what can stand beside it; text or data for sure, if it `says_something`.
fn content(says_something: bool) -> impl Strategy<Value = Content> {
    let json = text().prop_map(|text| ("application/json", serde_json::to_vec(&text).unwrap()));
    let bytes = vec(any::<u8>(), 1..40).prop_map(|bytes| ("image/webp", bytes));
    let place =
        (any::<[u8; 16]>(), target()).prop_map(|(id, sequence)| Place { conversation: ConversationId(id), sequence });
    let beside = (
        option::of(prop_oneof![json, bytes]),
        option::of(target()),
        option::of(target()),
        option::of(place),
        vec(user(), 0..4),
        any::<bool>(),
    );
    (text(), any::<bool>(), beside).prop_map(
        move |(text, has_text, (data, reply_to, thread, forwarded, users, everybody))| {
            let mentions = mentions_to_bytes(&users);
            let data = data.as_ref().map(|(content_type, bytes)| Data { content_type, bytes });
            let needs_text = data.is_none() && (says_something || forwarded.is_none());
            let text = (has_text || needs_text).then_some(text.as_str());
            let mentions = Mentions::new(&mentions);
            ContentView { text, data, reply_to, thread, forwarded, mentions, everybody }.to_content()
        },
    )
}

pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    let body = prop_oneof![
        content(false).prop_map(|content| (EntryKind::Message, content.0)),
        (vec(user(), 0..4), vec(user(), 0..4))
            .prop_map(|(added, removed)| (EntryKind::Membership, MembershipChange { added, removed }.to_body())),
        title().prop_map(|title| (EntryKind::Title, title.into_bytes())),
        (any::<bool>(), title(), vec(user(), 0..4)).prop_map(|(direct, title, members)| (
            EntryKind::Created,
            ConversationStart { direct, title, members }.to_body()
        )),
        change().prop_map(|change| (change.kind(), change.to_body(Ordinal(0)))),
        Just((EntryKind::Message, Vec::new())),
        roles(1).prop_map(|roles| (EntryKind::Roles, roles_to_body(&roles))),
        settings().prop_map(|settings| (EntryKind::Settings, settings.to_body())),
        bans().prop_map(|bans| (EntryKind::Bans, bans.to_body())),
        invite_change().prop_map(|change| (EntryKind::Invite, change.to_body())),
        (account_key(), option::of(json_text()))
            .prop_map(|(key, value)| (EntryKind::AccountData, AccountChange { key, value }.to_body())),
        (target(), user()).prop_map(|(invite, user)| (EntryKind::Joined, Joined { invite, user }.to_body())),
    ];
    let place = (conversation(), epoch(), sequence(), sequence(), time_ms());
    (place, name(), user(), body).prop_map(|((conversation, epoch, sequence, ordinal, time_ms), name, sender, body)| {
        let (kind, body) = body;
        let named = kind == EntryKind::Message || kind.is_change();
        let client_message_id = if named { name } else { ClientMessageId([0; 16]) };
        let ordinal = Ordinal(ordinal.0);
        Entry { conversation, epoch, sequence, ordinal, time_ms, kind, client_message_id, sender, body }
    })
}

fn answer() -> impl Strategy<Value = ServerFrame> {
    let members = (option::of(sequence()), option::of(vec(member(), 0..4)), option::of(user()));
    let history = (conversation(), epoch(), sequence(), sequence(), vec(entry_bytes(), 0..4));
    let ack = (sequence(), sequence(), time_ms(), any::<bool>());
    prop_oneof![
        welcome().prop_map(ServerFrame::Welcome),
        (time_ms(), option::of(position()))
            .prop_map(|(time_ms, position)| ServerFrame::Pong(Pong { time_ms, position })),
        option::of(time_ms()).prop_map(|expires_ms| ServerFrame::RefreshAnswer(Refreshed { expires_ms })),
        time_ms().prop_map(|expires_ms| ServerFrame::Expiring(Expiring { expires_ms })),
        invites_answer().prop_map(ServerFrame::InvitesAnswer),
        join_answer().prop_map(ServerFrame::JoinAnswer),
        account_answer().prop_map(ServerFrame::AccountAnswer),
        option::of(sequence()).prop_map(|sequence| ServerFrame::ViewAnswer(ViewAnswer { sequence })),
        devices_answer().prop_map(ServerFrame::DevicesAnswer),
        (presences(), any::<u32>())
            .prop_map(|(users, watching)| ServerFrame::PresenceAnswer(PresenceAnswer { users, watching })),
        (conversation(), epoch(), sequence(), any::<bool>()).prop_map(|(conversation, epoch, sequence, existing)| {
            ServerFrame::Created(Created { conversation, epoch, sequence, existing })
        }),
        members.prop_map(|(sequence, members, next)| {
            ServerFrame::MembersAnswer(MembersAnswer { sequence, members, next })
        }),
        (vec(summary(), 0..3), option::of(conversation())).prop_map(|(conversations, next)| {
            ServerFrame::ConversationsAnswer(ConversationsAnswer { conversations, next })
        }),
        sequence().prop_map(|sequence| ServerFrame::TitleAnswer(TitleAnswer { sequence })),
        ack.prop_map(|(sequence, ordinal, time_ms, duplicate)| {
            ServerFrame::Ack(Ack { sequence, ordinal: Ordinal(ordinal.0), time_ms, duplicate })
        }),
        history.prop_map(|(conversation, epoch, first, last, entries)| {
            ServerFrame::HistoryAnswer(HistoryAnswer { conversation, epoch, first, last, entries })
        }),
        marked().prop_map(ServerFrame::ReadAnswer),
        marked().prop_map(ServerFrame::DeliveredAnswer),
        (sequence(), sequence(), time_ms(), any::<bool>()).prop_map(|(sequence, ordinal, time_ms, duplicate)| {
            ServerFrame::ReactAnswer(Ack { sequence, ordinal: Ordinal(ordinal.0), time_ms, duplicate })
        }),
        (vec((user(), vec(text(), 0..3)), 0..3), option::of(user())).prop_map(|(reactors, next)| {
            let reactions = reactors.into_iter().map(|(user, reactions)| Reactor { user, reactions }).collect();
            ServerFrame::ReactionsAnswer(ReactionsAnswer { reactions, next })
        }),
        vec(sequence(), 0..4).prop_map(|pins| ServerFrame::PinsAnswer(PinsAnswer { pins })),
        (option::of(sequence()), option::of(roles(0)), option::of(user()))
            .prop_map(|(sequence, roles, next)| { ServerFrame::RolesAnswer(RolesAnswer { sequence, roles, next }) }),
        (sequence(), settings(), role()).prop_map(|(sequence, settings, role)| {
            ServerFrame::SettingsAnswer(SettingsAnswer { sequence, settings, role })
        }),
        (option::of(sequence()), option::of(vec(user(), 0..4)), option::of(user()))
            .prop_map(|(sequence, users, next)| ServerFrame::BansAnswer(BansAnswer { sequence, users, next })),
        (conversation(), epoch(), sequence(), vec(message_state(), 0..3)).prop_map(
            |(conversation, epoch, as_of, states)| {
                ServerFrame::States(States { conversation, epoch, as_of, states })
            }
        ),
    ]
}

fn push() -> impl Strategy<Value = ServerFrame> {
    let error = (proptest::sample::select(ErrorCode::ALL), any::<String>(), option::of(any::<u32>()));
    let receipt = (conversation(), user(), sequence(), sequence());
    prop_oneof![
        error.prop_map(|(code, text, retry_after_ms)| ServerFrame::Error(ErrorFrame { code, text, retry_after_ms })),
        presences().prop_map(|users| ServerFrame::Present(Present { users })),
        (conversation(), epoch(), sequence(), sequence(), time_ms()).prop_map(
            |(conversation, epoch, sequence, ordinal, time_ms)| {
                let ordinal = Ordinal(ordinal.0);
                ServerFrame::Advanced(Advanced { conversation, epoch, sequence, ordinal, time_ms })
            }
        ),
        entry_bytes().prop_map(ServerFrame::Mentioned),
        entry_bytes().prop_map(ServerFrame::Message),
        receipt.prop_map(|(conversation, user, read, delivered)| {
            ServerFrame::Receipt(Receipt { conversation, user, read, delivered })
        }),
        (conversation(), sequence())
            .prop_map(|(conversation, sequence)| ServerFrame::Left(Left { conversation, sequence })),
        (conversation(), epoch(), sequence(), sequence()).prop_map(|(conversation, epoch, first, last)| {
            ServerFrame::TooFar(TooFar { conversation, epoch, first, last })
        }),
        position().prop_map(|position| ServerFrame::CaughtUp(CaughtUp { position })),
        (any::<u16>(), any::<String>(), option::of(any::<u32>())).prop_map(|(code, reason, reconnect_after_ms)| {
            ServerFrame::Goodbye(Goodbye { code, reason, reconnect_after_ms })
        }),
        (conversation(), user(), "[!-~]{1,32}", option::of(json_text())).prop_map(
            |(conversation, user, event, data)| { ServerFrame::Event(Event { conversation, user, event, data }) }
        ),
    ]
}

fn connect() -> impl Strategy<Value = Connect> {
    let known = (conversation(), epoch(), sequence()).prop_map(|(conversation, epoch, sequence)| Known {
        conversation,
        epoch,
        sequence,
    });
    let resume = (position(), vec(known, 0..5)).prop_map(|(position, known)| Resume { position, known });
    let client = ("\\PC{0,15}", "\\PC{0,15}").prop_map(|(name, version)| ClientInfo { name, version });
    (option::of(any::<String>()), option::of(device()), option::of(resume), option::of(client))
        .prop_map(|(token, device, resume, client)| Connect { token, device, resume, client })
}

fn members_action() -> impl Strategy<Value = MembersAction> {
    prop_oneof![
        vec(user(), 1..5).prop_map(MembersAction::Add),
        vec(user(), 1..5).prop_map(MembersAction::Remove),
        (option::of(user()), limit()).prop_map(|(after, limit)| MembersAction::List(MembersList { after, limit })),
    ]
}

fn history() -> impl Strategy<Value = History> {
    (conversation(), 0..4_u8, sequence(), limit()).prop_map(|(conversation, anchor, sequence, limit)| History {
        conversation,
        before: (anchor == 1).then_some(sequence),
        after: (anchor == 2).then_some(sequence),
        around: (anchor == 3).then_some(sequence),
        limit,
    })
}

fn welcome() -> impl Strategy<Value = Welcome> {
    let resume = proptest::sample::select(&[ResumeOutcome::Fresh, ResumeOutcome::Resuming, ResumeOutcome::Reset]);
    let who = (user(), device(), any::<String>(), time_ms());
    (who, any::<u32>(), resume, any::<[u32; 6]>()).prop_map(|(who, heartbeat_interval_ms, resume, limits)| {
        let (user, device, session, time_ms) = who;
        let [frame, text, request, group, page, rate] = limits;
        let limits = Limits {
            frame_bytes_max: frame,
            text_bytes_max: text,
            members_per_request_max: request,
            group_members_max: group,
            page_items_max: page,
            requests_per_second_max: rate,
        };
        Welcome { user, device, session, time_ms, heartbeat_interval_ms, resume, limits }
    })
}

fn member() -> impl Strategy<Value = Member> {
    (user(), role(), sequence(), sequence()).prop_map(|(user, role, read, delivered)| Member {
        user,
        role,
        read,
        delivered,
    })
}

fn marked() -> impl Strategy<Value = Marked> {
    (sequence(), sequence(), any::<u64>()).prop_map(|(read, delivered, unread)| Marked { read, delivered, unread })
}

fn summary() -> impl Strategy<Value = Summary> {
    let names = (conversation(), epoch(), option::of(user()), title(), title(), role(), option::of(entry_bytes()));
    (names, sequence(), time_ms(), any::<u32>(), sequence(), any::<u64>()).prop_map(
        |(
            (conversation, epoch, direct, title, picture, role, last),
            last_sequence,
            last_time_ms,
            members,
            read,
            unread,
        )| Summary {
            conversation,
            epoch,
            direct,
            title,
            picture,
            role,
            last_sequence,
            last_time_ms,
            members,
            read,
            unread,
            last,
        },
    )
}

fn message_state() -> impl Strategy<Value = MessageState> {
    let edited = (sequence(), time_ms()).prop_map(|(sequence, time_ms)| Edited { sequence, time_ms });
    let reaction = (text(), any::<u32>(), any::<bool>()).prop_map(|(reaction, count, mine)| ReactionCount {
        reaction,
        count,
        mine,
    });
    (sequence(), option::of(edited), any::<bool>(), any::<bool>(), 0..9u32, vec(reaction, 0..3)).prop_map(
        |(sequence, edited, deleted, pinned, replies, reactions)| MessageState {
            sequence,
            edited,
            deleted,
            pinned,
            replies,
            reactions,
        },
    )
}

fn entry_bytes() -> impl Strategy<Value = EntryBytes> {
    entry().prop_map(|entry| EntryBytes(entry.to_archive().to_vec()))
}

fn user() -> impl Strategy<Value = UserId> {
    "[!#-&(-+.0-;=?-\\[\\]-~-]{1,64}".prop_map(|text| UserId::new(&text).unwrap())
}

fn device() -> impl Strategy<Value = DeviceId> {
    "[a-z0-9-]{1,64}".prop_map(|text| DeviceId::new(&text).unwrap())
}

fn conversation() -> impl Strategy<Value = ConversationId> {
    any::<[u8; 16]>().prop_map(ConversationId)
}

fn name() -> impl Strategy<Value = ClientMessageId> {
    any::<[u8; 16]>().prop_map(ClientMessageId)
}

fn position() -> impl Strategy<Value = PositionBytes> {
    vec(any::<u8>(), 0..140).prop_map(PositionBytes)
}

fn title() -> impl Strategy<Value = String> {
    any::<String>().prop_map(|text| text.chars().take(60).collect())
}

fn text() -> impl Strategy<Value = String> {
    any::<String>().prop_map(|text| if text.is_empty() { "?".to_owned() } else { text })
}

fn sequence() -> impl Strategy<Value = Sequence> {
    (0..=JSON_INTEGER_MAX).prop_map(Sequence)
}

fn epoch() -> impl Strategy<Value = Epoch> {
    any::<u32>().prop_map(Epoch)
}

fn time_ms() -> impl Strategy<Value = TimestampMs> {
    (0..=JSON_INTEGER_MAX).prop_map(TimestampMs)
}

fn limit() -> impl Strategy<Value = Option<u32>> {
    option::of(1..=200_u32)
}

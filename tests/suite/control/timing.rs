//! By the clock, too, nobody learns whether an account is there.
//!
//! Cases are called in a random order and compared by rank (Mann and Whitney's U, here as the share of
//! pairs in which the one took longer: 0.5 when nothing tells them apart). Each story has a case that is
//! different on purpose, and must find it, so that silence means something.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tollgate::credential::password::{self, Password};
use tollgate::store::users;

use crate::post_office::PostOffice;
use crate::world::{PASSWORD, World};

/// One kind of call, and the status it always gets.
struct Case {
    name: &'static str,
    path: &'static str,
    form: Value,
    status: u16,
}

/// The calls of a story: the first ones must be alike, the last one must stand out.
struct Lineup {
    alike: Vec<Case>,
    odd: Case,
}

/// Calls of each case. At so many, equal cases come out further than [`ALIKE`] from 0.5 once in 4,000
/// comparisons.
const CALLS: usize = 100;
/// How far from 0.5 two cases that are alike may be.
const ALIKE: f64 = 0.15;
/// How far from 0.5 the odd case must be of every other: it would have been noticed. (On a machine with
/// nothing else to do it is at 0.45 and more.)
const ODD: f64 = 0.2;
/// A busy machine is given another chance; a leak is there each time.
const CHANCES: usize = 5;
/// What a password is refused for before it is compared with any: more bytes than bcrypt reads.
const TOO_LONG: &str = "1234567890-1234567890-1234567890-1234567890-1234567890-1234567890-1234567890";

// === impl Lineup ===

impl Lineup {
    /// Nobody can tell these apart, but for the odd one.
    async fn is_told_apart_only_by_the_odd_one(&self, world: &World) {
        for (n, one) in self.alike.iter().enumerate() {
            for other in &self.alike[..n] {
                assert_eq!(
                    told(world, one).await,
                    told(world, other).await,
                    "{} and {}",
                    one.name,
                    other.name
                );
            }
        }
        let mut surprises = Vec::new();
        for _ in 0..CHANCES {
            surprises = self.surprises(&self.timed(world).await);
            if surprises.is_empty() {
                return;
            }
        }
        panic!("each time, and the last time so: {surprises:#?}");
    }

    fn cases(&self) -> Vec<&Case> {
        self.alike.iter().chain([&self.odd]).collect()
    }

    /// How long each call of each case took.
    async fn timed(&self, world: &World) -> Vec<Vec<Duration>> {
        let cases = self.cases();
        let mut order: Vec<usize> = (0..cases.len() * CALLS).map(|n| n % cases.len()).collect();
        shuffle(&mut order);
        let mut took = vec![Vec::new(); cases.len()];
        for n in order {
            // An attempt of an account, and four of an address, grow back.
            world.clock.advance(Duration::from_mins(1));
            let (case, begun) = (cases[n], Instant::now());
            let reply = world.post(case.path).json(&case.form).send().await;
            took[n].push(begun.elapsed());
            assert_eq!(reply.status, case.status, "{}: {}", case.name, reply.text());
        }
        took
    }

    fn surprises(&self, took: &[Vec<Duration>]) -> Vec<String> {
        let (cases, odd) = (self.cases(), self.alike.len());
        let mut found = Vec::new();
        for n in 0..cases.len() {
            for m in 0..n {
                let share = longer(&took[n], &took[m]);
                let off = (share - 0.5).abs();
                if (n == odd && off < ODD) || (n != odd && off > ALIKE) {
                    found.push(format!("{} took longer than {}: {share:.2}", cases[n].name, cases[m].name));
                }
            }
        }
        found
    }
}

/// The share of pairs in which one of `these` took longer than one of the `others`: U over their product.
fn longer(these: &[Duration], others: &[Duration]) -> f64 {
    let score = |a: &Duration, b: &Duration| match a.cmp(b) {
        std::cmp::Ordering::Greater => 2_u32,
        std::cmp::Ordering::Equal => 1,
        std::cmp::Ordering::Less => 0,
    };
    let sum: u32 = these.iter().map(|a| others.iter().map(|b| score(a, b)).sum::<u32>()).sum();
    let pairs = u32::try_from(these.len() * others.len()).unwrap();
    f64::from(sum) / 2.0 / f64::from(pairs)
}

/// The same each time (Fisher and Yates, Knuth's linear congruence).
fn shuffle(order: &mut [usize]) {
    let mut state: u64 = 42;
    for n in (1..order.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(n, usize::try_from(state >> 33).unwrap() % (n + 1));
    }
}

/// What a call is answered, without what names it.
async fn told(world: &World, case: &Case) -> (u16, Value, Vec<String>) {
    world.clock.advance(Duration::from_mins(1));
    let reply = world.post(case.path).json(&case.form).send().await;
    let mut body = reply.json();
    for own in ["request_id", "timestamp"] {
        body.as_object_mut().unwrap().remove(own);
    }
    (reply.status, body, reply.headers.keys().map(ToString::to_string).collect())
}

fn user(name: &'static str, email: &str, password: &str) -> Case {
    let form = json!({"email": email, "password": password});
    Case { name, path: "/api/v1/auth/login", form, status: 401 }
}

fn named(name: &'static str, path: &'static str, username: &str, password: &str) -> Case {
    Case { name, path, form: json!({"username": username, "password": password}), status: 401 }
}

/// Gives a user's password a hash of another cost.
async fn hash_anew(world: &World, email: &str, cost: u32) {
    let user = world.ask(users::by_email(world.db(), email)).await.unwrap().unwrap();
    let new = password::hash(&Password::check(PASSWORD).unwrap(), cost).unwrap();
    let (old, now) = (user.password_hash.as_str(), world.clock.now());
    let changed = users::update_password_hash(world.db(), user.id, old, new.as_str(), now);
    world.ask(changed).await.unwrap();
}

async fn dearer() -> World {
    of_cost(6).await
}

async fn of_cost(rounds: u32) -> World {
    World::with(|setup| setup.add(&format!("[security]\nbcrypt_rounds = {rounds}"))).await
}

#[tokio::test]
async fn a_users_login_takes_as_long_with_an_account_as_without() {
    // Two hashes of half the rounds take a little more than one, whatever the cost: their set-up. It shows
    // beside the rounds of cost 6, and no longer beside those of cost 8, let alone of 12.
    let world = of_cost(8).await;
    for name in ["ann", "off", "old", "odd"] {
        world.user(name).await;
    }
    world.change("off", json!({"is_active": false})).await;
    hash_anew(&world, "old@example.com", 7).await;
    hash_anew(&world, "odd@example.com", 10).await;
    let lineup = Lineup {
        alike: vec![
            user("a wrong password", "ann@example.com", "wrong-word-1"),
            user("nobody's address", "eve@example.com", "wrong-word-1"),
            user("no address at all", "eve", "wrong-word-1"),
            user("an account that is switched off", "off@example.com", "wrong-word-1"),
            user("a hash of before the cost was raised", "old@example.com", "wrong-word-1"),
        ],
        odd: user("a hash four times as dear", "odd@example.com", "wrong-word-1"),
    };
    lineup.is_told_apart_only_by_the_odd_one(&world).await;
}

#[tokio::test]
async fn so_does_that_of_staff() {
    let world = dearer().await;
    for name in ["sue", "off"] {
        world.staff(name, "support").await;
    }
    let (off, admin) = (json!({"is_active": false}), world.admin().await);
    let changed = world.put("/api/v1/admin/staff/off").bearer(&admin).json(&off).send().await;
    assert_eq!(changed.status, 200, "{}", changed.text());
    let path = "/api/v1/staff/login";
    let lineup = Lineup {
        alike: vec![
            named("a wrong password", path, "sue", "wrong-word-1"),
            named("nobody's name", path, "eve", "wrong-word-1"),
            named("somebody who was switched off", path, "off", "wrong-word-1"),
        ],
        odd: named("a password that is nobody's", path, "sue", TOO_LONG),
    };
    lineup.is_told_apart_only_by_the_odd_one(&world).await;
}

#[tokio::test]
async fn so_does_the_admins() {
    let world = dearer().await;
    let path = "/api/v1/admin/login";
    let lineup = Lineup {
        alike: vec![
            named("a wrong password", path, "admin", "wrong-word-1"),
            named("nobody's name", path, "root", "wrong-word-1"),
        ],
        odd: named("a password that is nobody's", path, "admin", TOO_LONG),
    };
    lineup.is_told_apart_only_by_the_odd_one(&world).await;
}

/// Somebody verified, somebody not, and somebody switched off, behind a post office.
async fn with_post() -> (World, PostOffice) {
    let mut office = PostOffice::open();
    let world = World::with(|setup| setup.add(&office.config())).await;
    for name in ["ann", "new", "off"] {
        world.user(name).await;
    }
    world.change("off", json!({"is_active": false})).await;
    let ask = json!({"email": "ann@example.com"});
    assert_eq!(world.post("/api/v1/auth/verify-email/request").json(&ask).send().await.status, 202);
    let confirm = json!({"email": "ann@example.com", "token": office.letter().await.token()});
    assert_eq!(world.post("/api/v1/auth/verify-email/confirm").json(&confirm).send().await.status, 200);
    (world, office)
}

const NO_TOKEN: &str = "23456789abcdefghijkm";
const PEOPLE: [(&str, &str); 4] = [
    ("an address that is verified", "ann@example.com"),
    ("one that is not", "new@example.com"),
    ("one of an account that is switched off", "off@example.com"),
    ("nobody's", "eve@example.com"),
];

async fn letters_are_asked_for_alike(path: &'static str) {
    let (world, _office) = with_post().await;
    let ask = |(name, email)| Case { name, path, form: json!({"email": email}), status: 202 };
    let odd = Case {
        name: "a call that writes a row before it answers",
        path: "/api/v1/auth/verify-email/confirm",
        form: json!({"email": "eve@example.com", "token": NO_TOKEN}),
        status: 400,
    };
    let lineup = Lineup { alike: PEOPLE.map(ask).into(), odd };
    lineup.is_told_apart_only_by_the_odd_one(&world).await;
}

#[tokio::test]
async fn a_letter_to_reset_a_password_is_asked_for_in_the_same_time() {
    letters_are_asked_for_alike("/api/v1/auth/password-reset/request").await;
}

#[tokio::test]
async fn so_is_one_to_verify_an_address() {
    letters_are_asked_for_alike("/api/v1/auth/verify-email/request").await;
}

#[tokio::test]
async fn a_guess_at_a_token_takes_as_long_whoever_it_is_about() {
    let (world, _office) = with_post().await;
    for email in ["ann@example.com", "new@example.com"] {
        let ask = world.post("/api/v1/auth/password-reset/request").json(&json!({"email": email}));
        assert_eq!(ask.send().await.status, 202);
    }
    let path = "/api/v1/auth/password-reset/confirm";
    let guess = |(name, email), password: &str| {
        let form = json!({"email": email, "token": NO_TOKEN, "new_password": password,
                          "confirm_new_password": password});
        Case { name, path, form, status: 400 }
    };
    let odd = Case { status: 422, ..guess(("a password that is refused", "ann@example.com"), "short") };
    let lineup = Lineup { alike: PEOPLE.map(|who| guess(who, "another-word-9")).into(), odd };
    lineup.is_told_apart_only_by_the_odd_one(&world).await;
}

#[tokio::test]
async fn so_does_a_registration_by_mail_whose_address_is_known() {
    let (mut world, _office) = with_post().await;
    world.restart(|setup| setup.add("[security]\nregistration_by_mail = true")).await;
    let path = "/api/v1/auth/register";
    let registers = |(name, email), username: &str| {
        let form = json!({"username": username, "name": "x", "email": email, "password": PASSWORD,
                          "confirm_password": PASSWORD});
        Case { name, path, form, status: 202 }
    };
    let odd = Case { status: 409, ..registers(("a name that is taken", "eve@example.com"), "ann") };
    let alike =
        PEOPLE.into_iter().zip(["one", "two", "three", "four"]).map(|(who, name)| registers(who, name));
    let lineup = Lineup { alike: alike.collect(), odd };
    lineup.is_told_apart_only_by_the_odd_one(&world).await;
}

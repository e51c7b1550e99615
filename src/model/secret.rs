//! Recognises possible secrets: the one rule by which values and names are kept out of messages.
//!
//! The rule is a guess, and errs towards hiding. A value may be a secret because of the name at which it
//! stands ([`is_secret_name`]) or because of how it looks ([`is_secret_text`]). Names are read word by word:
//! `userPassword`, `user-password` and `USER_PASSWORD` are two words; `tokenizer` is one, and not in the
//! table.

use std::{borrow::Cow, collections::BTreeSet};

use super::limits::SECRET_NAME_CHARS_MAX;

/// Words that make a name secret, whatever precedes them. In the singular; a plural counts as the same word.
const SECRET: &str = "accesskey apikey auth authorization authtoken bearer clientsecret cookie cred credential cvc cvv dsn jwt kennwort keyphrase \
    mnemonic oauth otp passcode passphrase passwd password passwort privatekey psk pw pwd secret secretkey signingkey token totp";

/// Words that make a name secret only beside one of their companions.
const BESIDE: &[(&str, &str)] = &[
    (
        "key",
        "access account admin aes api app client consumer decryption deploy encryption gpg hmac license master pgp priv \
        private rsa secret service shared signing ssh storage subscription",
    ),
    ("pass", "admin code database db ftp http login mail phrase proxy root smtp user word"),
    ("code", "access auth backup pin recovery security verification"),
    ("phrase", "pass recovery seed"),
    ("pin", "card user sim"),
    ("string", "connection"),
    ("url", "database webhook"),
];

/// As the last word of a name: then the name is of a property of the secret, such as its place or maximum
/// length.
const ABOUT: &str = "age algorithm bit byte char count dir directory enabled endpoint expiry expires field file folder format header issuer kind len \
    length limit max method min mode ms path policy prefix protocol provider realm required rule scheme scope size source ttl type uri \
    url version";

/// As the first word of a name: then the name is of a number of secrets.
const COUNTS: &str = "average avg count max maximum mean min minimum n num number sum total";

/// Beside `token`, anywhere in the name: then `token` means a piece of text, as in language models.
const PIECES: &str = "added audio begin bos budget cached classification cls completion context decoder embedding end eos extra first forced generated \
    id image index input last level logit logprob mask model new offset output pad per position prob probability prompt reasoning sep \
    span special start stop text thinking unk usage video vocab";

/// Prefixes of keys and tokens of well-known services.
const BEGINNINGS: &str =
    "sk- sk_ pk_ rk_ hf_ ghp_ gho_ ghs_ ghu_ ghr_ github_pat_ glpat- xoxb- xoxp- xoxa- xoxs- AKIA ASIA AIza eyJ npm_ pypi- dckr_pat_";
/// How many letters and digits after such a prefix make a secret.
const AFTER_BEGINNING: usize = 6;

/// Length from which a run of letters and digits is examined.
const RUN: usize = 20;
/// Length from which a run with both letters and digits, and without `_`, is a key. A shorter run is one if
/// it is hexadecimal.
const LONG_RUN: usize = 32;
/// A shorter run is a key if letters (of one case) and digits alternate this often: names alternate less.
const TURNS: usize = 5;

/// Whether a value with this name may be a secret. `name` is a key, or the path to it: a JSON pointer, or
/// dotted keys.
pub fn is_secret_name(name: &str) -> bool {
    let is_secret = |part: &str| is_secret_words(&words(part));
    name.split('/').any(|segment| is_secret(segment) || segment.split('.').any(is_secret))
}

fn is_secret_words(words: &[String]) -> bool {
    let (Some(first), Some(last)) = (words.first(), words.last()) else { return false };
    // The last word of a webhook's address does not say where a secret is: the address is one.
    let is_named = BESIDE.iter().any(|(known, companions)| is(last, known) && words.iter().any(|word| has(companions, word)));
    if words.len() > 1 && !is_named && (has(ABOUT, last) || has(COUNTS, first)) {
        return false;
    }
    // Each word once, because each is compared with all others.
    let words: BTreeSet<&String> = words.iter().collect();
    words.iter().enumerate().any(|(at, word)| {
        let beside = |companions: &str| words.iter().enumerate().any(|(other, word)| other != at && has(companions, word));
        let is_piece = is(word, "token") && beside(PIECES);
        has(SECRET, word) && !is_piece || BESIDE.iter().any(|(known, companions)| is(word, known) && beside(companions))
    })
}

fn is(word: &str, known: &str) -> bool {
    word == known || word.strip_suffix('s') == Some(known)
}

fn has(table: &str, word: &str) -> bool {
    table.split(' ').any(|known| is(word, known))
}

/// The words of a name in lower case. It is split at other characters than letters and digits, before a
/// capital after a lower-case letter, and between letters and digits. A word that ends with one of the
/// table's long words is split in two: `dbpassword`, `maxtokens`.
fn words(name: &str) -> Vec<String> {
    let chars: Vec<char> = name.chars().take(SECRET_NAME_CHARS_MAX).collect();
    let (mut words, mut word) = (Vec::new(), String::new());
    for (at, &c) in chars.iter().enumerate() {
        let (before, after) = (at.checked_sub(1).map(|at| chars[at]), chars.get(at + 1));
        let begins = before.is_some_and(|before| {
            let is_capital = c.is_uppercase() && (before.is_lowercase() || after.is_some_and(|after| after.is_lowercase()));
            is_capital || c.is_numeric() != before.is_numeric()
        });
        // The plural of an abbreviation: `APIs`, `IDs`.
        let is_plural = c.is_uppercase() && after == Some(&'s') && chars.get(at + 2).is_none_or(|next| !next.is_lowercase());
        if (!c.is_alphanumeric() || begins && !is_plural) && !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words.into_iter().flat_map(parted).collect()
}

fn parted(word: String) -> Vec<String> {
    const LONG: &str = "password passwd passphrase passcode secret token credential apikey accesskey";
    let singular = word.strip_suffix('s').unwrap_or(&word);
    match LONG.split(' ').filter_map(|long| singular.strip_suffix(long)).find(|rest| !rest.is_empty()).map(str::len) {
        Some(at) => vec![word[..at].to_owned(), word[at..].to_owned()],
        None => vec![word],
    }
}

/// Whether a text contains a possible password, token or key, whatever its name.
pub fn is_secret_text(text: &str) -> bool {
    text.contains("-----BEGIN")
        || text.split(|c: char| c.is_whitespace() || "\"'`,;()[]{}<>".contains(c)).any(is_secret_word)
        || is_login(text)
        || says_a_secret(text)
}

/// Whether one word of a text, split at white space and punctuation, may be a secret.
fn is_secret_word(word: &str) -> bool {
    let has_user = word.split("://").skip(1).any(|rest| rest.split(['/', '?', '#']).next().is_some_and(|host| host.contains('@')));
    let has_login = !word.contains("://")
        && word.split_once('@').and_then(|(user, _)| user.split_once(':')).is_some_and(|(user, secret)| {
            !user.is_empty() && !secret.is_empty() && !secret.contains('/') && !["mailto", "acct", "sip", "sips", "xmpp"].contains(&user)
        });
    let begins = |part: &str| {
        BEGINNINGS
            .split(' ')
            .filter_map(|start| part.strip_prefix(start))
            .any(|rest| rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(byte)).count() >= AFTER_BEGINNING)
    };
    has_user
        || has_login
        || word.split(['=', ':', '/', '&', '?', '|', '.']).any(begins)
        || word.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(is_key)
}

/// Whether a run of letters, digits and `_` looks unlike any name.
fn is_key(run: &str) -> bool {
    #[derive(PartialEq)]
    enum Kind {
        Digit,
        Small,
        Capital,
    }
    let letters: Vec<u8> = run.bytes().filter(|byte| *byte != b'_').collect();
    let is_mixed = letters.iter().any(u8::is_ascii_digit) && letters.iter().any(u8::is_ascii_alphabetic);
    if letters.len() < RUN || !is_mixed {
        return false;
    }
    let kind = |byte: u8| match byte {
        b'0'..=b'9' => Kind::Digit,
        b'a'..=b'z' => Kind::Small,
        _ => Kind::Capital,
    };
    // A capital and the lower-case letter after it count as one: words begin like that.
    let turns = letters.windows(2).filter(|two| match (kind(two[0]), kind(two[1])) {
        (Kind::Capital, Kind::Small) => false,
        (before, after) => before != after,
    });
    let is_hex = letters.iter().all(u8::is_ascii_hexdigit);
    is_hex || run.len() >= LONG_RUN && !run.contains('_') || turns.count() >= TURNS
}

/// Whether a text is the value of an HTTP authorization header.
fn is_login(text: &str) -> bool {
    let after = |word: &str| {
        let start = text.get(..word.len()).filter(|start| start.eq_ignore_ascii_case(word))?;
        text[start.len()..].strip_prefix(' ').map(str::trim)
    };
    let is_coded = |rest: &str| {
        rest.len() >= 8 && !rest.contains(' ') && rest.bytes().any(|byte| byte.is_ascii_uppercase() || b"=0123456789".contains(&byte))
    };
    after("bearer").is_some_and(|rest| !rest.is_empty() && !rest.contains(' ')) || after("basic").is_some_and(is_coded)
}

/// Whether a text assigns a value to a secret name: `Password=x`, `"api_key": "x"`, `--token x`.
fn says_a_secret(text: &str) -> bool {
    let given = text.match_indices(['=', ':']).any(|(at, _)| {
        let before = text[..at].trim_end_matches(['"', '\'', '`', ' ', '\\']);
        let start = before
            .rfind(|c: char| !(c.is_alphanumeric() || "_-.".contains(c)))
            .map_or(0, |at| at + before[at..].chars().next().map_or(1, char::len_utf8));
        let value = text[at + 1..].trim_start_matches(['"', '\'', '`', ' ', '\\']);
        !value.is_empty() && !value.starts_with(['&', ',', ';', '}', ')']) && is_secret_name(&before[start..])
    });
    let mut words = text.split_whitespace();
    let is_flag = |word: &str| word.strip_prefix("--").is_some_and(|name| !name.contains('=') && is_secret_name(name));
    given || (words.any(is_flag) && words.next().is_some())
}

/// A text without the user and the password of each address in it.
pub fn without_users(text: &str) -> Cow<'_, str> {
    // The replacement itself, and the placeholder with which a hint shows how to write an address.
    const SHOWN: [&str; 2] = [HIDDEN, "user:password"];
    const HIDDEN: &str = "***";
    let is_end = |c: char| c.is_whitespace() || "/?#\"'`<>\\".contains(c);
    let mut parts = text.split("://");
    let mut written = parts.next().unwrap_or_default().to_owned();
    let mut is_changed = false;
    for part in parts {
        written.push_str("://");
        let host = part.find(is_end).unwrap_or(part.len());
        match part[..host].rfind('@') {
            Some(at) if !SHOWN.contains(&&part[..at]) => {
                written.push_str(HIDDEN);
                written.push_str(&part[at..]);
                is_changed = true;
            }
            _ => written.push_str(part),
        }
    }
    if is_changed { written.into() } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_secret_by_its_words() {
        let secret = "password Password passwd pwd PWD userPassword user_password DB_PASS db-pass dbpassword passWord PGPASSWORD password2 \
            passwords passphrase passcode pw secret clientSecret client_secret secrets AWS_SECRET_ACCESS_KEY access_key accessKey \
            accesskey access-key ACCESS_KEYS api_key apiKey APIKey apikey x-api-key OPENAI_API_KEY private_key privateKey \
            signing_key ssh_key encryption_key token Token HF_TOKEN hf_tokens authToken auth_token access_token refreshToken \
            csrf_token bearer authorization Authorization proxy_authorization auth basic_auth credentials creds session_cookie \
            Set-Cookie jwt otp cvv connection_string DATABASE_URL seed_phrase recovery_code user_name_password secret_id /password/0 \
            /a/tokens/3 /db/credentials/name remote.password api.key /headers/x-api-key";
        let plain = "x name username max_tokens maxTokens MAX_TOKENS maxtokens max_new_tokens min_tokens num_tokens n_tokens total_tokens \
            prompt_tokens completion_tokens token_count tokenCount token_ids token_type_ids tokens_per_second eos_token pad_token_id \
            bos_token stop_tokens special_tokens token_limit token_budget token_logprobs tokenizer tokenizer_config tokenize \
            tokenization untokenized key keys keyword primary_key public_key sort_key keyboard monkey hotkey passenger pass \
            first_pass bypass compass passage author authors authority secretary password_length password_min_length password_file \
            token_url auth_mode authType secret_path credentials_file max_password_length cookie_policy code postcode language_code \
            string url pin_memory pinned accession accessible access private /items/0/text /operations/a~1b input.max_tokens";
        assert!(secret.split(' ').count() > 60 && plain.split(' ').count() > 60);
        for (names, is_secret) in [(secret, true), (plain, false)] {
            for name in names.split(' ') {
                assert_eq!(is_secret_name(name), is_secret, "{name}: {:?}", words(name));
            }
        }
    }

    #[test]
    fn a_text_is_secret_by_how_it_looks() {
        let secret = r#"
hf_planted
use hf_planted here
sk-planted1
"ghp_planted"
AKIAPLANTEDX
token=planted
Password=planted
Server=db;User=me;Password=planted;
pwd: planted
{"api_key": "planted"}
{'client_secret': 'planted'}
{\"password\": \"planted\"}
?lines=3&access_key=planted
curl --token planted x
--password=planted
Authorization: Basic planted
Bearer planted
bearer planted
Basic cGxhbnRlZA==
https://me:planted@host.example/x
https://planted@host.example
first https://a.example/ then https://me:planted@b.example/
me:planted@host.example:5432/db
postgres://me:planted@db/x
-----BEGIN PRIVATE KEY-----
the key is 0a1b2c3d4e5f60718293a4b5c6d7e8f9
deadbeefdeadbeefdead1234
dGhpc2lzYXNlY3JldDEyMw
x3Kp9QzLw7RtYv2NbM8s
eyJhbGciOiJIUzI1NiJ9.e30.x
HF_TOKEN=planted python x.py
PASSWORD = planted"#;
        let plain = r#"
Ada
a long but ordinary sentence of a person, with 3 numbers
sentence-transformers/all-MiniLM-L6-v2
https://host.example/a?b=c@d
ada@example.org
mailto:ada@example.org
git@host.example:some/repo
max_tokens=512
tokenizer: fast
Basic training for everybody
Basic English
bearer of good news
the password is required
password
sk-learn
10:30
C:\Users\ada
2026-11-28T18:00:00Z
550e8400-e29b-41d4-a716-446655440000
sentence_transformers_all_minilm_l6_v2
a_rather_long_name_of_a_function_2
internationalization
12345678901234567890
key: value
a=1&b=2
token_count: 5
token=
{"tokens_per_second": 5}
wav2vec2-large-xlsr-53
application/x-ndjson"#;
        for (texts, is_secret) in [(secret, true), (plain, false)] {
            let texts = texts.trim_matches('\n').lines();
            assert!(texts.clone().count() > 25);
            for text in texts {
                assert_eq!(is_secret_text(text), is_secret, "{text}");
            }
        }
    }

    #[test]
    fn an_address_in_a_text_has_no_user() {
        for (text, wanted) in [
            ("no answer from https://me:planted@host.example/x", "no answer from https://***@host.example/x"),
            ("`https://planted@a` and \"ftp://me:pl@nted@b/c@d\"", "`https://***@a` and \"ftp://***@b/c@d\""),
            ("https://host.example/a@b", "https://host.example/a@b"),
            ("https://***@host.example/", "https://***@host.example/"),
            ("://", "://"),
        ] {
            assert_eq!(without_users(text), wanted);
        }
    }
}

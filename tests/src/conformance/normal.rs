//! How answers of two servers are made comparable: by these rules, and no others.
//!
//! Always: a server's directory is `DIR`, its socket `SOCKET`, its bridge `BRIDGE`; white space within a line is one blank but where it
//! indents an element, and none at its end; lines of dashes are one length; empty lines are gone.

use anyhow::{Context as _, Result};

/// What a session asks for beside what is always done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// `ids`: a domain's number is of its server's counting: a number that is a line's first word, a whole line, or
    /// behind `Id:` or in an `id` attribute, is `ID`.
    Ids,
    /// `numbers`: every number is `N`: figures of a host or of a guest's run.
    Numbers,
    /// `uuids`: a UUID that a server chose is `UUID`.
    Uuids,
    /// `macs`: an address that a server chose is `MAC`.
    Macs,
    /// `values`: of `name=value`, or of a line `name: value`, the name counts alone.
    Values,
    /// `cpu-time`: a line `CPU time:` is there only once a domain has used some.
    CpuTime,
    /// `drive`: the drive for media is `DRIVE`, which is on another bus for each.
    Drive,
    /// `sorted`: lines have no order.
    Sorted,
}

impl Rule {
    /// The rule of that name.
    ///
    /// # Errors
    /// There is none.
    pub fn named(name: &str) -> Result<Rule> {
        let name = name.trim();
        let all = [
            ("ids", Rule::Ids),
            ("numbers", Rule::Numbers),
            ("uuids", Rule::Uuids),
            ("macs", Rule::Macs),
            ("values", Rule::Values),
            ("cpu-time", Rule::CpuTime),
            ("drive", Rule::Drive),
            ("sorted", Rule::Sorted),
        ];
        let found = all.into_iter().find(|(other, _)| *other == name);
        let (_, rule) = found.with_context(|| format!("there is no rule '{name}'"))?;
        Ok(rule)
    }
}

/// The words of a server that stand for what each server has.
#[derive(Debug, Clone)]
pub struct Own {
    pub socket: String,
    pub directory: String,
    pub bridge: String,
}

/// An answer, comparable.
#[must_use]
pub fn normal(text: &str, own: &Own, rules: &[Rule]) -> String {
    let text = text
        .replace(&own.socket, "SOCKET")
        .replace(&own.directory, "DIR")
        .replace(&own.bridge, "BRIDGE");
    let mut lines: Vec<String> = text
        .lines()
        .map(|line| {
            let mut line = columns(line);
            for rule in rules {
                line = apply(*rule, &line);
            }
            line
        })
        .filter(|line| !line.is_empty())
        .collect();
    if rules.contains(&Rule::Sorted) {
        lines.sort();
    }
    lines.join("\n")
}

fn columns(line: &str) -> String {
    let words = line.split_whitespace().collect::<Vec<_>>().join(" ");
    if words.len() > 3 && words.chars().all(|c| c == '-') {
        return "---".to_owned();
    }
    if words.starts_with('<') {
        let indent = line.len() - line.trim_start().len();
        return format!("{}{}", &line[..indent], line.trim());
    }
    words
}

fn apply(rule: Rule, line: &str) -> String {
    match rule {
        Rule::Ids => ids(line),
        Rule::Numbers => numbers(line),
        Rule::Uuids => shapes(line, "########-####-####-####-############", "UUID"),
        Rule::Macs => shapes(line, "##:##:##:##:##:##", "MAC"),
        Rule::Values => values(line),
        Rule::CpuTime if line.starts_with("CPU time:") => String::new(),
        Rule::Drive => line.replace("vda", "DRIVE").replace("hda", "DRIVE"),
        Rule::CpuTime | Rule::Sorted => line.to_owned(),
    }
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

fn ids(line: &str) -> String {
    if let Some(rest) = line.strip_prefix("Id: ") {
        return format!("Id: {}", if is_number(rest) { "ID" } else { rest });
    }
    if let Some((before, after)) = line.split_once(" id='") {
        if let Some((id, after)) = after.split_once('\'') {
            if is_number(id) && line.trim_start().starts_with("<domain ") {
                return format!("{before} id='ID'{after}");
            }
        }
    }
    if let Some(id) = line
        .strip_prefix("id=\"")
        .and_then(|rest| rest.strip_suffix('"'))
    {
        if is_number(id) {
            return "id=\"ID\"".to_owned();
        }
    }
    match line.split_once(' ') {
        Some((first, rest)) if is_number(first) => format!("ID {rest}"),
        None if is_number(line) => "ID".to_owned(),
        _ => line.to_owned(),
    }
}

fn numbers(line: &str) -> String {
    let mut out = String::new();
    let mut within = false;
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        let digit = character.is_ascii_digit();
        let point = character == '.'
            && within
            && characters.peek().is_some_and(|next| next.is_ascii_digit());
        if digit && !within {
            out.push('N');
        } else if !digit && !point {
            out.push(character);
        }
        within = digit || point;
    }
    out
}

/// Replaces what has a shape, in which `#` is a hexadecimal digit.
fn shapes(line: &str, shape: &str, name: &str) -> String {
    let fits = |text: &[char]| {
        text.len() >= shape.len()
            && shape.chars().zip(text).all(|(want, got)| {
                if want == '#' {
                    got.is_ascii_hexdigit()
                } else {
                    want == *got
                }
            })
    };
    let characters: Vec<char> = line.chars().collect();
    let (mut out, mut at) = (String::new(), 0);
    while let Some(character) = characters.get(at) {
        if fits(&characters[at..]) {
            out.push_str(name);
            at += shape.len();
        } else {
            out.push(*character);
            at += 1;
        }
    }
    out
}

fn values(line: &str) -> String {
    if let Some((name, _)) = line.split_once('=') {
        return format!("{name}=");
    }
    match line.split_once(':') {
        Some((name, _)) if !line.starts_with("error") => format!("{name}:"),
        _ => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::{Own, Rule, normal};

    fn seen(text: &str, rules: &[Rule]) -> String {
        let own = Own {
            socket: "/run/s".to_owned(),
            directory: "/tmp/x".to_owned(),
            bridge: "br7".to_owned(),
        };
        normal(text, &own, rules)
    }

    #[test]
    fn a_servers_own_words_are_no_difference() {
        assert_eq!(seen(" a   b \n\n------\n", &[]), "a b\n---");
        assert_eq!(seen("  <a b='1'/>", &[]), "  <a b='1'/>");
        assert_eq!(seen("/tmp/x/disk on br7", &[]), "DIR/disk on BRIDGE");
    }

    #[test]
    fn a_rule_hides_what_it_says() {
        assert_eq!(seen(" 12 web running", &[Rule::Ids]), "ID web running");
        assert_eq!(seen("Id:  12", &[Rule::Ids]), "Id: ID");
        assert_eq!(seen("CPUs: 12", &[Rule::Ids]), "CPUs: 12");
        assert_eq!(seen("a 1.50s of 2 B", &[Rule::Numbers]), "a Ns of N B");
        assert_eq!(seen("x=1 2", &[Rule::Values]), "x=");
        assert_eq!(seen("error: y: z", &[Rule::Values]), "error: y: z");
        assert_eq!(seen("b\na", &[Rule::Sorted]), "a\nb");
        assert_eq!(seen("at 52:54:00:ab:cd:ef.", &[Rule::Macs]), "at MAC.");
        let uuid = "a11111111-2222-3333-4444-555555555555";
        assert_eq!(seen(uuid, &[Rule::Uuids]), "aUUID");
    }
}

# Reads JSON, with comment lines in front, and prints a line for each string, number, true, false and null: its
# path (/users/0/name; "~1" is a slash and "~0" a tilde in a name), a tab, and its value, in which a backslash, a
# newline and a tab are written as \\, \n and \t. Stops with exit code 1 where the text is not JSON.

NR == FNR && text == "" && /^#/ { next }
{ text = text $0 "\n" }
END {
    size = length(text)
    at = 1
    value("")
    skip()
    if (at <= size) wrong()
}

function wrong() {
    print "json: unexpected text at character " at >"/dev/stderr"
    exit 1
}

function skip() {
    while (at <= size && index(" \t\r\n", substr(text, at, 1))) at++
}

# Whether the next character is this one, which is then taken.
function take(char) {
    skip()
    if (substr(text, at, 1) != char) return 0
    at++
    return 1
}

function value(path,    name, number) {
    if (take("{")) {
        if (take("}")) return
        do {
            if (!take("\"")) wrong()
            name = string()
            gsub("~", "~0", name)
            gsub("/", "~1", name)
            if (!take(":")) wrong()
            value(path "/" name)
        } while (take(","))
        if (!take("}")) wrong()
    } else if (take("[")) {
        if (take("]")) return
        number = 0
        do value(path "/" number++); while (take(","))
        if (!take("]")) wrong()
    } else if (take("\"")) {
        print path "\t" string()
    } else {
        number = substr(text, at, 64)
        if (!match(number, /^[-+.0-9A-Za-z]+/)) wrong()
        print path "\t" substr(number, 1, RLENGTH)
        at += RLENGTH
    }
}

# The rest of a string whose opening quote is taken.
function string(    out, char) {
    out = ""
    while (at <= size) {
        char = substr(text, at++, 1)
        if (char == "\"") return out
        if (char == "\\") {
            char = substr(text, at++, 1)
            if (char == "n" || char == "t" || char == "\\") char = "\\" char
            else if (char == "u") char = unicode()
            else if (char == "b" || char == "f" || char == "r") char = " "
        }
        out = out char
    }
    wrong()
}

# The bytes of the character whose four digits come next; of two, if it is the first half of a pair.
function unicode(    code) {
    code = digits()
    if (code >= 55296 && code < 56320 && substr(text, at, 2) == "\\u") {
        at += 2
        code = 65536 + (code - 55296) * 1024 + digits() - 56320
    }
    if (code == 9) return "\\t"
    if (code == 10) return "\\n"
    if (code == 92) return "\\\\"
    if (code < 32) return " "
    if (code < 128) return sprintf("%c", code)
    if (code < 2048) return sprintf("%c%c", 192 + int(code / 64), 128 + code % 64)
    if (code < 65536)
        return sprintf("%c%c%c", 224 + int(code / 4096), 128 + int(code / 64) % 64, 128 + code % 64)
    return sprintf("%c%c%c%c", 240 + int(code / 262144), 128 + int(code / 4096) % 64, \
        128 + int(code / 64) % 64, 128 + code % 64)
}

function digits(    code, i) {
    code = 0
    for (i = 0; i < 4; i++) code = code * 16 + index("0123456789abcdef", tolower(substr(text, at++, 1))) - 1
    return code
}

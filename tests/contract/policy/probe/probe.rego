# Compares and echoes what is in the input, with everything that a policy may use: for the differential suite, which asks
# the embedded engine and a real OPA server the same and demands the same.
package sandboxd

import rego.v1

default decision := {"verdict": "allow"}

decision := {
	"verdict": "warn",
	"reasons": reasons,
	"message_for_agent": concat(",", [name | some name in names; name in held]),
	"ttl_seconds": seconds,
	"obligations": {"redact": echoed},
} if {
	is_string(input.s)
}

reasons := [{"code": input.s, "message": input.t}]

echoed := [text | some text in input.list; is_string(text)]

default seconds := 0

seconds := input.n if {
	is_number(input.n)
	input.n >= 0
}

names := [
	"equal", "not_equal", "member", "some_value", "some_key", "every_differs", "lookup", "lookup_default", "same_keys",
	"path", "many", "empty", "n_equal_m", "n_below_m", "n_at_most_m", "n_above_100", "n_below_2_63", "n_whole", "sum", "difference",
	"s_equals_t", "s_starts_t", "s_ends_t", "s_contains_t", "lower_equal", "joined", "split_back", "formatted",
	"is_null", "is_boolean", "is_number", "is_string", "is_array", "is_object", "a_type_b", "known_text", "slice",
	"concatenated", "union", "intersection", "filtered", "removed", "absent", "number_of",
]

held contains "equal" if input.a == input.b

held contains "not_equal" if input.a != input.b

held contains "member" if input.a in input.list

held contains "some_value" if {
	some _, value in input.object
	value == input.a
}

held contains "some_key" if {
	some key, _ in input.object
	key == input.s
}

held contains "every_differs" if {
	every item in input.list { item != input.a }
}

held contains "lookup" if input.object[input.s] == input.a

held contains "lookup_default" if object.get(input.object, input.s, input.b) == input.b

held contains "same_keys" if object.keys(input.object) == {key | some key in input.list}

held contains "path" if object.get(input, ["object", input.s], null) == input.object[input.s]

held contains "many" if count(input.list) > 2

held contains "empty" if count(input.object) == 0

held contains "n_equal_m" if input.n == input.m

held contains "n_below_m" if {
	is_number(input.n)
	is_number(input.m)
	input.n < input.m
}

held contains "n_at_most_m" if {
	is_number(input.n)
	is_number(input.m)
	input.n <= input.m
}

held contains "n_above_100" if {
	is_number(input.n)
	input.n > 100
}

held contains "n_below_2_63" if {
	is_number(input.n)
	input.n < 9223372036854775808
}

held contains "n_whole" if {
	is_number(input.n)
	input.n == 9007199254740993
}

held contains "sum" if {
	is_number(input.n)
	is_number(input.m)
	input.n + input.m > 0
}

held contains "difference" if {
	is_number(input.n)
	is_number(input.m)
	input.n - input.m == 0
}

held contains "s_equals_t" if input.s == input.t

held contains "s_starts_t" if startswith(input.s, input.t)

held contains "s_ends_t" if endswith(input.s, input.t)

held contains "s_contains_t" if contains(input.s, input.t)

held contains "lower_equal" if lower(input.s) == lower(input.t)

held contains "joined" if concat("/", [input.s, input.t]) == input.joined

held contains "split_back" if {
	parts := split(input.joined, "/")
	parts[0] == input.s
}

held contains "formatted" if sprintf("%s/%s", [input.s, input.t]) == input.joined

held contains "is_null" if is_null(input.a)

held contains "is_boolean" if is_boolean(input.a)

held contains "is_number" if is_number(input.a)

held contains "is_string" if is_string(input.a)

held contains "is_array" if is_array(input.a)

held contains "is_object" if is_object(input.a)

held contains "a_type_b" if type_name(input.a) == type_name(input.b)

held contains "known_text" if input.s in {"", "a", "\u0000", "\"", "\\", "\n", "é", "😀", "/", "</script>"}

held contains "slice" if array.slice(input.list, 0, 1) == [input.a]

held contains "concatenated" if array.concat(input.list, [input.a]) == array.concat(input.list, [input.b])

held contains "union" if {item | some item in input.list} | {input.a} == {item | some item in input.list}

held contains "intersection" if count({item | some item in input.list} & {input.a, input.b}) > 0

held contains "filtered" if object.filter(input.object, [input.s]) != {}

held contains "removed" if object.remove(input.object, [input.s]) == input.object

held contains "absent" if not input.absent

held contains "number_of" if 12 + count(input.list) == 13

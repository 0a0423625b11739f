"""What lines may reach: media and adapters, by what the command line allows."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from blendrun.endpoints.adapters import adapter_of, declared_adapters, other_models
from blendrun.endpoints.rules import Rules
from blendrun.errors import ErrorCode, LineError, UsageError

PNG = "data:image/png;base64,AAAA"
ANYTHING = Rules(media_files=True, media_urls=True)
SQL = Rules(adapters=("sql", "law"), base=("tiny", "org/tiny", "default"))


def body(url: object, name: str = "image_url", **fields: Any) -> dict[str, Any]:
    parts = [{"type": "text", "text": "What is it?"}, {"type": name, name: {"url": url, **fields}}]
    return {"messages": [{"role": "system", "content": "Look."}, {"role": "user", "content": parts}]}


def refused(rules: Rules, request: dict[str, Any]) -> tuple[ErrorCode, str]:
    with pytest.raises(LineError) as caught:
        rules.check(request)
    return caught.value.code, caught.value.message


class TestMedia:
    @pytest.mark.parametrize("name", ["image_url", "video_url", "audio_url"])
    def test_by_default_a_line_holds_its_media_itself(self, name: str) -> None:
        Rules().check(body(PNG, name))
        for url in ("http://example.org/a.png", "HTTPS://example.org/a.png"):
            code, message = refused(Rules(), body(url, name))
            assert code is ErrorCode.MEDIA_UNAVAILABLE
            assert message == f"`messages[1].content[1].{name}`: {url!r} is fetched only with --allow-media-urls"
        for url in ("file:///etc/passwd", "/etc/passwd", "../secret.png", "FILE:/etc/passwd", "AAAA", ""):
            code, message = refused(Rules(), body(url, name))
            assert code is ErrorCode.MEDIA_UNAVAILABLE
            assert "is read only with --allow-media-files DIR" in message

    def test_each_flag_opens_its_own_door_only(self) -> None:
        Rules(media_urls=True).check(body("https://example.org/a.png"))
        Rules(media_files=True).check(body("file:///a.png"))
        assert refused(Rules(media_files=True), body("http://example.org"))[0] is ErrorCode.MEDIA_UNAVAILABLE
        assert refused(Rules(media_urls=True), body("/a.png"))[0] is ErrorCode.MEDIA_UNAVAILABLE

    @pytest.mark.parametrize("url", ["ftp://host/a", "gopher://x", "video:/etc/passwd", "DATA:image/png;base64,AA"])
    def test_other_schemes_are_nobodys(self, url: str) -> None:
        code, message = refused(ANYTHING, body(url))
        assert code is ErrorCode.INVALID_REQUEST and "is none of data:, http:, https:, file: and a path" in message

    @pytest.mark.parametrize("url", ["data:", "data:image/png,AAAA", "data:image/png;base64"])
    def test_a_data_url_is_in_base64(self, url: str) -> None:
        assert refused(ANYTHING, body(url)) == (
            ErrorCode.INVALID_REQUEST,
            "`messages[1].content[1].image_url`: a data URL must be data:TYPE;base64,DATA",
        )

    def test_the_type_that_a_part_states_hides_nothing(self) -> None:
        request = body("/etc/passwd")
        request["messages"][1]["content"][1]["type"] = "text"
        assert refused(Rules(), request)[0] is ErrorCode.MEDIA_UNAVAILABLE

    @pytest.mark.parametrize("holder", ["/etc/passwd", None, {}, {"url": 7}, {"url": ["/etc/passwd"]}])
    def test_what_is_no_reference_is_refused(self, holder: object) -> None:
        request = {"messages": [{"role": "tool", "content": [{"type": "image_url", "image_url": holder}]}]}
        assert refused(ANYTHING, request)[1] == "`messages[0].content[0].image_url` must be an object with a `url`"

    def test_a_line_does_not_say_under_which_name_its_media_are_cached(self) -> None:
        code, message = refused(ANYTHING, body(PNG, content_hash="sha256:" + "0" * 64))
        assert code is ErrorCode.INVALID_REQUEST and "`messages[1].content[1].image_url.content_hash`" in message

    def test_a_long_url_is_not_repeated_in_full(self) -> None:
        assert len(refused(Rules(), body("A" * 100_000))[1]) < 300


class TestAdapters:
    @pytest.mark.parametrize("model", [None, "gpt-4o", "llama3:8b", "sql", ""])
    def test_where_none_is_declared_any_model_runs_on_the_loaded_one(self, model: str | None) -> None:
        Rules().check({"model": model, "prompt": "x"})
        assert adapter_of({"model": model}, ()) is None

    @pytest.mark.parametrize(
        ("fields", "name"),
        [
            ({}, None),
            ({"model": "tiny"}, None),
            ({"model": "default", "lora_path": ""}, None),
            ({"model": "sql"}, "sql"),
            ({"model": "tiny:law"}, "law"),
            ({"model": "org/tiny:law"}, "law"),
            ({"model": "tiny", "lora_path": "sql"}, "sql"),
            ({"lora_path": "sql"}, "sql"),
            ({"model": "sql", "lora_path": "sql"}, "sql"),
        ],
    )
    def test_declared_ones_are_found(self, fields: dict[str, Any], name: str | None) -> None:
        SQL.check(fields)
        assert adapter_of(fields, ("sql", "law")) == name

    @pytest.mark.parametrize(
        "fields", [{"model": "sqll"}, {"model": "tiny:lw"}, {"model": "gpt-4o"}, {"model": "other:sql"}]
    )
    def test_a_slip_of_the_pen_does_not_run_on_the_base(self, fields: dict[str, Any]) -> None:
        code, message = refused(SQL, fields)
        assert code is ErrorCode.INVALID_REQUEST
        assert message == f"`model`: {fields['model']!r} is not served; served are tiny, org/tiny, default, sql, law"

    def test_lora_path_is_one_declared_name(self) -> None:
        assert refused(SQL, {"lora_path": "/adapters/x"})[1].startswith(
            "`lora_path`: there is no adapter '/adapters/x'; served are tiny"
        )
        assert "this run declares none" in refused(Rules(), {"lora_path": "sql"})[1]
        assert "one adapter a line" in refused(SQL, {"lora_path": ["sql"]})[1]
        assert "leave one out" in refused(SQL, {"model": "sql", "lora_path": "law"})[1]

    @pytest.mark.parametrize(
        ("argument", "names"),
        [
            (None, ()),
            ({"sql": "/a", "law": "/b"}, ("sql", "law")),
            (["sql=/a", "/b", {"lora_name": "x=y", "lora_path": "/c"}], ("sql", "/b", "x=y")),
        ],
    )
    def test_names_are_read_as_sglang_does(self, argument: object, names: tuple[str, ...]) -> None:
        assert declared_adapters(argument) == names

    @pytest.mark.parametrize("argument", ["sql=/a", 7, [7], [{"lora_path": "/a"}], [""]])
    def test_what_sglang_would_not_take_is_a_usage_error(self, argument: object) -> None:
        with pytest.raises(UsageError, match="lora_paths"):
            declared_adapters(argument)

    def test_other_names_are_counted_in_one_sentence(self) -> None:
        assert other_models(Counter({"tiny": 9, "default": 1}), "tiny", ()) is None
        one = other_models(Counter({"gpt-4o": 1}), "tiny", ())
        assert one == "1 line names another model and runs on tiny all the same: gpt-4o (1)"
        names = Counter({"tiny": 9, "a": 1200, "b": 2} | {f"m{place}": 1 for place in range(9)})
        assert other_models(names, "tiny", ()) == (
            "1,211 lines name another model and run on tiny all the same: a (1,200), b (2), m0 (1), m1 (1), m2 (1), …"
        )

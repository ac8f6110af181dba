from pathlib import Path

import jwt
import pytest

from functions.convert.cpus import available_cpus
from functions.settings import BadSetting
from infra import config


def test_defaults_need_no_server(tmp_path: Path) -> None:
    known = config.values({}, tmp_path, 8080)
    assert known["database-owner"] == {"DATABASE_URL": f"sqlite:///{tmp_path}/mp3burst.db"}
    assert known["database-convert"] == known["database-owner"]
    assert len(known["log"]["LOG_KEY"]) == 64
    assert known["media"] == {"MEDIA_DIR": str(tmp_path / "media")}
    assert known["mail"] == {"MAIL_DIR": str(tmp_path / "mail")}
    assert known["mp3burst"].keys() == {"PUBLIC_URL", "TOKEN_PUBLIC_KEYS", "FANOUT_PIECES"}
    assert known["mp3burst"]["PUBLIC_URL"] == "http://localhost:8080"
    assert len(known["links"]["LINK_KEY"]) == 64


def test_operator_settings_override_defaults(tmp_path: Path) -> None:
    operator = {"MYSQL_HOST": "db", "MONGO_URI": "mongodb://m", "SMTP_HOST": "mail", "LINK_DAYS": "3", "HOME": "/root"}
    known = config.values({**operator, "KEEP_DAYS": ""}, tmp_path, 1)
    assert known["database-owner"] == known["database-login"] == {"MYSQL_HOST": "db"}
    assert known["media"] == {"MONGO_URI": "mongodb://m"}
    assert known["mail"] == {"SMTP_HOST": "mail"}
    assert known["mp3burst"]["LINK_DAYS"] == "3"
    assert "KEEP_DAYS" not in known["mp3burst"]
    assert not any("HOME" in source for source in known.values())


def test_functions_connect_as_users_of_their_own_if_there_is_a_key(tmp_path: Path) -> None:
    known = config.values({"DATABASE_URL": "postgresql://o:p@h/d", "DATABASE_USERS_KEY": "k" * 32}, tmp_path, 1)
    assert known["database-owner"] == {"DATABASE_URL": "postgresql://o:p@h/d", "DATABASE_USERS_KEY": "k" * 32}
    assert known["database-upload"].keys() == {"DATABASE_URL"}
    assert known["database-upload"]["DATABASE_URL"].startswith("postgresql://d_upload:")
    assert known["database-login"] != known["database-upload"]
    with pytest.raises(BadSetting, match="DATABASE_USERS_KEY"):
        config.values({"DATABASE_URL": "postgresql://o:p@h/d", "DATABASE_USERS_KEY": "k"}, tmp_path, 1)


def test_default_number_of_pieces_is_the_number_of_cpus(tmp_path: Path) -> None:
    pieces = int(config.values({}, tmp_path, 1)["mp3burst"]["FANOUT_PIECES"])
    assert pieces == max(available_cpus(), 2)
    assert config.values({"FANOUT_PIECES": "7"}, tmp_path, 1)["mp3burst"]["FANOUT_PIECES"] == "7"


@pytest.mark.parametrize("name", ["SMTP_HOST", "SENDGRID_API_KEY", "GMAIL_ADDRESS"])
def test_mail_service_replaces_the_mail_directory(tmp_path: Path, name: str) -> None:
    assert config.values({name: "x"}, tmp_path, 1)["mail"] == {name: "x"}


def test_keys_are_generated_once_and_private(tmp_path: Path) -> None:
    first, second = (config.values({}, tmp_path, 1) for _ in range(2))
    assert first == second
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "keys").iterdir()} == {0o600}
    other = tmp_path / "other"
    other.mkdir()
    assert config.values({}, other, 1)["links"] != first["links"]


def test_public_key_matches_the_private_key(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    private = config.values({}, other, 1)["token-signing"]["TOKEN_PRIVATE_KEY"]
    known = config.values({"TOKEN_PRIVATE_KEY": private}, tmp_path, 1)
    token = jwt.encode({"sub": "me"}, known["token-signing"]["TOKEN_PRIVATE_KEY"], "EdDSA")
    assert jwt.decode(token, known["mp3burst"]["TOKEN_PUBLIC_KEYS"], ["EdDSA"]) == {"sub": "me"}
    with pytest.raises(BadSetting, match="TOKEN_PRIVATE_KEY is not a private key"):
        config.values({"TOKEN_PRIVATE_KEY": "secret"}, tmp_path, 1)


def test_truncated_key_file_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "link.new").write_text("trunc")
    assert len(config.values({}, tmp_path, 1)["links"]["LINK_KEY"]) == 64


def test_container_gets_the_variables_it_lists() -> None:
    known = {"c": {"A": "1", "B": "2"}, "s": {"X": "secret"}}
    container = {
        "envFrom": [{"configMapRef": {"name": "c"}}, {"secretRef": {"name": "none", "optional": True}}],
        "env": [
            {"name": "B", "value": "own"},
            {"name": "Y", "valueFrom": {"secretKeyRef": {"name": "s", "key": "X"}}},
            {"name": "Z", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "none", "optional": True}}},
        ],
    }
    assert config.environment(container, known) == {"A": "1", "B": "own", "Y": "secret"}
    assert config.environment({}, known) == {}
    assert config.environment({"envFrom": [{"prefix": "P_", "secretRef": {"name": "s"}}]}, known) == {"P_X": "secret"}


@pytest.mark.parametrize(
    "container",
    [
        {"envFrom": [{"secretRef": {"name": "none"}}]},
        {"env": [{"name": "Y", "valueFrom": {"secretKeyRef": {"name": "s", "key": "none"}}}]},
        {"env": [{"name": "Y", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}]},
    ],
)
def test_missing_reference_is_an_error(container: dict[str, object]) -> None:
    with pytest.raises(BadSetting, match="A manifest refers to"):
        config.environment(container, {"s": {"X": "secret"}})

"""Which files are read as code: the user's own, root's, and those of the owner of this package, where nobody else can write."""

import os
import warnings

import pytest

from adjode.compile import trusted

pytestmark = pytest.mark.skipif(os.name == "nt", reason="no owners, no modes")
needs_root = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="only root can give files away")
STRANGER = 12345


@pytest.fixture
def folder(tmp_path):
    """A folder with one file, in a folder for it alone."""
    kept = tmp_path / "parent" / "kept"
    trusted.claim(kept)
    trusted.write(kept, "name", b"contents")
    trusted._require_safe_way.cache_clear()  # for tests that change the way
    return kept


def assert_left_alone(folder, reason):
    file = folder / "name"
    before = file.lstat()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert trusted.read(folder, "name") is None
        trusted.write(folder, "name", b"other")
        assert trusted.read(folder, "name") is None
    (warning,) = caught
    assert warning.category is RuntimeWarning and reason in str(warning.message) and str(folder) in str(warning.message)
    after = file.lstat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def assert_read(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert trusted.read(folder, "name") == b"contents"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_folders_that_others_may_write_to(folder, mode):
    folder.chmod(mode)
    assert_left_alone(folder, f"others may write to {folder}")
    with pytest.raises(trusted.Untrusted):
        trusted.claim(folder)


@pytest.mark.parametrize("mode", [0o666, 0o620])
def test_files_that_others_may_write_to(folder, mode):
    (folder / "name").chmod(mode)
    assert_left_alone(folder, f"others may write to {folder / 'name'}")


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o755])
def test_folders_that_others_may_replace(folder, mode):
    folder.parent.chmod(mode)
    if mode == 0o777:
        assert_left_alone(folder, f"others may write to {folder.parent}")
    else:
        assert_read(folder)


def test_a_group_of_one_is_the_user(folder, monkeypatch):
    folder.parent.chmod(0o775)
    monkeypatch.setattr(trusted, "_has_one_member", lambda group: False)
    assert_left_alone(folder, f"others may write to {folder.parent}")
    monkeypatch.setattr(trusted, "_has_one_member", lambda group: True)
    assert_read(folder)


def test_groups(monkeypatch):
    import grp
    import pwd

    user = pwd.getpwuid(os.geteuid())
    for members, name, group, alone in (
        ([], user.pw_name, user.pw_gid, True),
        ([user.pw_name], user.pw_name, user.pw_gid, True),
        (["somebody"], user.pw_name, user.pw_gid, False),
        ([], "staff", user.pw_gid, False),
        ([], user.pw_name, user.pw_gid + 1, False),
    ):
        monkeypatch.setattr(grp, "getgrgid", lambda gid, found=(name, "x", group, members): grp.struct_group(found))
        assert trusted._has_one_member(group) == alone
    monkeypatch.setattr(grp, "getgrgid", lambda gid: {}[gid])
    assert not trusted._has_one_member(user.pw_gid)


def test_whoever_may_change_the_package_may_replace_its_folders(folder, monkeypatch):
    folder.parent.chmod(0o777)
    monkeypatch.setattr(trusted, "PACKAGE", folder.parent / "package")
    assert_read(folder)


def test_links_are_not_followed(folder, tmp_path):
    away = tmp_path / "away"
    (folder / "name").rename(away)
    (folder / "name").symlink_to(away)
    assert_left_alone(folder, "is a link")
    link = tmp_path / "link"
    link.symlink_to(folder)
    assert_left_alone(link, f"{link} is a link")


@needs_root
def test_links_of_others_on_the_way(folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder.parent)
    assert_read(link / "kept")
    os.chown(link, STRANGER, -1, follow_symlinks=False)
    trusted._require_safe_way.cache_clear()
    assert_left_alone(link / "kept", f"the link {link} belongs to user {STRANGER}")


@needs_root
@pytest.mark.parametrize("part", ["folder", "file"])
def test_what_belongs_to_others(folder, part):
    given = folder if part == "folder" else folder / "name"
    os.chown(given, STRANGER, -1)
    assert_left_alone(folder, f"{given} belongs to user {STRANGER}")


@needs_root
def test_users_read_what_is_theirs_or_roots_and_root_only_what_is_its_own(folder, monkeypatch):
    folder.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    assert_read(folder)
    os.chown(folder, STRANGER, -1)
    assert_read(folder)
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER + 1)
    assert_left_alone(folder, f"belongs to user {STRANGER}")
    owned = folder.parent / "package"
    owned.mkdir()
    os.chown(owned, STRANGER, -1)
    monkeypatch.setattr(trusted, "PACKAGE", owned)  # they could change what is imported
    assert_read(folder)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert trusted.read(folder, "name") is None


def test_what_is_put_in_the_place_of_a_folder_meanwhile_is_not_read(folder, monkeypatch):
    away = folder.with_name("away")
    opened = os.open

    def swap(path, *args, **kwargs):
        descriptor = opened(path, *args, **kwargs)
        if path == folder:
            folder.rename(away)
            folder.mkdir()
            (folder / "name").write_bytes(trusted._digest("name", b"planted") + b"planted")
        return descriptor

    monkeypatch.setattr(os, "open", swap)
    assert trusted.read(folder, "name") == b"contents"


@pytest.mark.parametrize("damaged", [b"", b"short", bytes(40)])
def test_damaged_files_are_deleted(folder, damaged):
    (folder / "name").write_bytes(damaged)
    assert trusted.read(folder, "name") is None
    assert not (folder / "name").exists()


def test_no_unfinished_file_is_left(folder, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    trusted.write(folder, "name", b"other")
    assert [path.name for path in folder.iterdir()] == ["name"]
    assert_read(folder)


def test_without_owners_files_are_read_by_their_paths(tmp_path, monkeypatch):
    monkeypatch.setattr(trusted, "_OWNED", False)
    folder = tmp_path / "new" / "kept"
    trusted.claim(folder)
    assert trusted.read(folder, "name") is None
    trusted.write(folder, "name", b"contents")
    assert trusted.read(folder, "name") == b"contents"
    (folder / "name").write_bytes(b"damaged")
    assert trusted.read(folder, "name") is None

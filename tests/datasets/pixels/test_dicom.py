"""DICOM: what a viewer would show, which frame, and no word of the patient."""

from __future__ import annotations

import io
import logging
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.datasets.pixels.encodings import write_dicom
from tests.processes import ROOT
from ttc.datasets.pixels import dicom
from ttc.datasets.pixels.decoding import decode_file
from ttc.datasets.pixels.files import is_image, read_header
from ttc.datasets.pixels.intensity import Samples
from ttc.datasets.pixels.preprocessing import Decoding
from ttc.datasets.pixels.survey import choose_decoding

pydicom = pytest.importorskip("pydicom")
RAMP = np.arange(64, dtype=np.uint16).reshape(8, 8) * 64
ANY = Decoding(8, 1)


def shown(path: Path, decoding: Decoding = ANY) -> np.ndarray:
    return decode_file(str(path), decoding)[0].numpy().astype(int)


def test_window_of_the_file_and_of_the_flag(tmp_path: Path) -> None:
    """PS3.3 C.11.2.1.2: below centre - 0.5 - (width - 1) / 2 black, above white, linear between."""
    write_dicom(tmp_path / "a.dcm", RAMP, bits=12, more={"WindowCenter": 2000, "WindowWidth": 1001})
    write_dicom(tmp_path / "plain.dcm", RAMP, bits=12)
    expected = ((RAMP - 1999.5) / 1000 + 0.5).clip(0, 1) * 255
    assert np.abs(shown(tmp_path / "a.dcm") - expected).max() <= 1
    flag = Decoding(8, 1, dicom_window=(500, 201))
    for name in ("a.dcm", "plain.dcm"):
        assert np.abs(shown(tmp_path / name, flag) - ((RAMP - 499.5) / 200 + 0.5).clip(0, 1) * 255).max() <= 1


def test_sigmoid_window(tmp_path: Path) -> None:
    more = {"WindowCenter": 2000, "WindowWidth": 1000, "VOILUTFunction": "SIGMOID"}
    write_dicom(tmp_path / "a.dcm", RAMP, bits=12, more=more)
    assert np.abs(shown(tmp_path / "a.dcm") - 255 / (1 + np.exp(-4 * (RAMP - 2000.0) / 1000))).max() <= 1


def test_rescale_comes_before_the_window(tmp_path: Path) -> None:
    rescale = {"RescaleSlope": 2, "RescaleIntercept": -1000}
    write_dicom(tmp_path / "a.dcm", RAMP, bits=12, more={**rescale, "WindowCenter": 40, "WindowWidth": 401})
    assert np.abs(shown(tmp_path / "a.dcm") - ((2.0 * RAMP - 1000 - 39.5) / 400 + 0.5).clip(0, 1) * 255).max() <= 1
    write_dicom(tmp_path / "b.dcm", RAMP, bits=12, more=rescale)
    found = shown(tmp_path / "b.dcm", Decoding(8, 1, black=-160.0, white=240.0))
    assert np.abs(found - ((2.0 * RAMP - 1000 + 160) / 400).clip(0, 1) * 255).max() <= 1
    assert np.abs(shown(tmp_path / "b.dcm") - RAMP / 4095 * 255).max() <= 1  # the rescaled range of 12 bits


def test_voi_table(tmp_path: Path) -> None:
    item = pydicom.Dataset()
    item.LUTDescriptor, item.LUTData = [4096, 0, 16], (65535 - 16 * np.arange(4096)).astype(np.uint16).tobytes()
    item["LUTDescriptor"].VR, item["LUTData"].VR = "US", "OW"
    write_dicom(tmp_path / "a.dcm", RAMP, bits=12, more={"VOILUTSequence": [item]})
    assert np.abs(shown(tmp_path / "a.dcm") - (65535 - 16.0 * RAMP) / 65535 * 255).max() <= 1


@pytest.mark.parametrize("more", [{}, {"WindowCenter": 2000, "WindowWidth": 3000}])
def test_monochrome1_is_inverted(tmp_path: Path, more: dict[str, object]) -> None:
    for name in ("MONOCHROME1", "MONOCHROME2"):
        write_dicom(tmp_path / f"{name}.dcm", RAMP, bits=12, photometric=name, more=more)
        write_dicom(tmp_path / f"{name}-8.dcm", (RAMP >> 4).astype(np.uint8), bits=8, photometric=name)
    for end in ("", "-8"):
        first, second = (shown(tmp_path / f"MONOCHROME{number}{end}.dcm") for number in (1, 2))
        assert (first == 255 - second).all()
        assert second.std() > 20


def test_frames(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", np.stack([RAMP, RAMP.T, RAMP[::-1]]), bits=12)
    first, second, third = (shown(Path(f"{tmp_path}/a.dcm#{number}")) for number in (1, 2, 3))
    assert (shown(tmp_path / "a.dcm") == first).all()
    assert (second == first.T).all()
    assert (third == first[::-1]).all()
    for number in (0, 4):
        with pytest.raises(ValueError, match=rf"a.dcm#{number}: frame {number} of 3 is wanted"):
            shown(Path(f"{tmp_path}/a.dcm#{number}"))
    write_dicom(tmp_path / "b#2.dcm", RAMP, bits=12)  # a name with the sign is a name
    assert (shown(tmp_path / "b#2.dcm") == first).all()


def test_elements_of_the_frame_in_enhanced_files(tmp_path: Path) -> None:
    groups = []
    for slope in (1, 2):
        group, transformation = pydicom.Dataset(), pydicom.Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept = slope, -100
        group.PixelValueTransformationSequence = [transformation]
        groups.append(group)
    more = {"PerFrameFunctionalGroupsSequence": groups}
    write_dicom(tmp_path / "a.dcm", np.stack([RAMP, RAMP]), bits=12, more=more)
    for number, slope in ((1, 1.0), (2, 2.0)):
        found = shown(Path(f"{tmp_path}/a.dcm#{number}"), Decoding(8, 1, black=0.0, white=4000.0))
        assert np.abs(found - ((slope * RAMP - 100) / 4000).clip(0, 1) * 255).max() <= 1


def test_files_are_known_by_their_beginning(tmp_path: Path) -> None:
    write_dicom(tmp_path / "IM0001", RAMP, bits=12)
    (tmp_path / "README").write_text("no image")
    (tmp_path / "a.dcm").write_bytes((tmp_path / "IM0001").read_bytes())
    assert [is_image(tmp_path / name) for name in ("IM0001", "README", "a.dcm", "missing")] == [
        True,
        False,
        True,
        False,
    ]
    header = read_header(str(tmp_path / "IM0001"))
    assert (header.width, header.height, header.depth, header.mode, header.gray) == (
        8,
        8,
        "16-bit",
        "DICOM MONOCHROME2",
        True,
    )


SAMPLES = {
    "CT_small.dcm": "rescaled",
    "MR_small.dcm": "windowed",
    "MR_small_RLE.dcm": "windowed",
    "MR_small_bigendian.dcm": "windowed",
    "SC_rgb_small_odd.dcm": "8-bit",
    "examples_palette.dcm": "8-bit",
    "examples_ybr_color.dcm": "8-bit",
    "SC_rgb_rle_16bit_2frame.dcm": "8-bit",
}


def sample(name: str) -> Path:
    found = pydicom.data.get_testdata_file(name, download=False)
    if found is None:
        pytest.skip(f"this pydicom brings no {name}")
    return Path(found)


@pytest.mark.parametrize("name", SAMPLES)
def test_real_files(name: str) -> None:
    path = sample(name)
    assert read_header(str(path)).depth == SAMPLES[name]
    file = pydicom.dcmread(path)
    pixels = decode_file(str(path), Decoding(32, 3)).numpy()
    assert pixels.std() > 0.5
    if SAMPLES[name] == "rescaled":  # against the values that pydicom itself gives
        values = file.pixel_array * float(file.RescaleSlope) + float(file.RescaleIntercept)
        found = dicom.read_samples(path.read_bytes(), None, None)
        assert isinstance(found, Samples)
        assert (found.values == values).all()
    if name == "SC_rgb_small_odd.dcm":
        squares = decode_file(str(path), Decoding(3, 3, "squash"))
        assert np.array_equal(squares.permute(1, 2, 0).numpy(), file.pixel_array)


@pytest.mark.parametrize("name", ["rtplan.dcm", "MR_truncated.dcm", "test-SR.dcm", "waveform_ecg.dcm"])
def test_files_without_an_image_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"cannot read image .*{name}: .*(no image|decoding its DICOM pixels)"):
        decode_file(str(sample(name)), ANY)


@pytest.mark.parametrize("name", ["MR_small_jpeg_ls_lossless.dcm", "JPGExtended.dcm"])
def test_a_missing_plugin_is_named(name: str) -> None:
    path = sample(name)
    syntax = pydicom.dcmread(path, stop_before_pixels=True).file_meta.TransferSyntaxUID
    if not pydicom.pixels.get_decoder(syntax).missing_dependencies:
        pytest.skip("all plugins are installed")
    with pytest.raises(
        ValueError, match=r"decoding its DICOM pixels, .*pip install what one of these needs: .*pylibjpeg"
    ) as caught:
        decode_file(str(path), ANY)
    assert syntax.name in str(caught.value)
    assert "\n" not in str(caught.value)


SECRETS = {
    "PatientName": "Planted^Person",
    "PatientID": "SECRET-77",
    "PatientBirthDate": "19330303",
    "StudyDate": "20010203",
    "AccessionNumber": "ACC-4711",
}
PLANTED = re.compile("Planted|SECRET|1933|2001|4711")


def damaged(path: Path) -> list[Path]:
    """Write files with a planted name of which something is broken."""
    write_dicom(path / "whole.dcm", RAMP, bits=12, more=SECRETS)
    content = (path / "whole.dcm").read_bytes()
    made = [path / "whole.dcm"]
    changes = {
        "cut": content[:-50],
        "no pixels": content[: content.index(b"\xe0\x7f\x10\x00")],
        "date": content.replace(b"20010203", b"2001ABCD"),
        "no end of the name": content[: content.index(b"Planted") + 4],
        "rows": content.replace(b"\x28\x00\x10\x00US\x02\x00\x08\x00", b"\x28\x00\x10\x00US\x02\x00\xff\xff"),
        "photometric": content.replace(b"MONOCHROME2 ", b"PlantedXYZ12"),
        "syntax": content.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0"),
        "window": content.replace(b"\x28\x00\x01\x01US", b"\x28\x00\x50\x10DS\x08\x00SECRET77\x28\x00\x01\x01US"),
    }
    for name, changed in changes.items():
        (path / f"{name}.dcm").write_bytes(changed)
        made.append(path / f"{name}.dcm")
    return made


def test_no_word_of_the_patient_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    told = []
    with caplog.at_level(logging.DEBUG):
        for path in damaged(tmp_path):
            told.append(
                str(
                    choose_decoding(
                        [str(path)], size=8, channels=1, framing="crop", intensity="auto", dicom_window=None
                    )
                )
            )
            try:
                decode_file(str(path), ANY)
            except ValueError as error:
                told += [str(error), str(error.__cause__)]
            try:
                told.append(str(read_header(str(path))))
            except ValueError as error:
                told.append(str(error))
    told += [record.getMessage() for record in caplog.records]
    shown_on_terminal = capfd.readouterr()
    assert len(told) > 20
    for text in (*told, shown_on_terminal.out, shown_on_terminal.err):
        assert not PLANTED.search(text.replace(str(tmp_path), "")), text


WITHOUT = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == {package!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
from ttc.datasets.pixels.decoding import decode_file
from ttc.datasets.pixels.preprocessing import Decoding
try:
    decode_file({path!r}, Decoding(8, {channels}))
except ValueError as error:
    print(error)
"""


@pytest.mark.parametrize(("package", "name"), [("pydicom", "a.dcm"), ("tifffile", "a.tif")])
def test_a_missing_package_is_one_line(package: str, name: str, tmp_path: Path) -> None:
    if name == "a.dcm":
        write_dicom(tmp_path / name, RAMP, bits=12)
    else:
        tifffile = pytest.importorskip("tifffile")
        tifffile.imwrite(tmp_path / name, np.zeros((8, 8, 3), dtype=np.uint16), photometric="rgb")
    program = WITHOUT.format(package=package, path=str(tmp_path / name), channels=3)
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert re.fullmatch(rf"cannot read image .*{name}: .*pip install {package}; repair or remove it.*\n", done.stdout)


def test_a_picture_is_the_same_as_png(tmp_path: Path) -> None:
    write_dicom(tmp_path / "a.dcm", RAMP, bits=12)
    file = io.BytesIO()
    Image.fromarray(RAMP).save(file, "PNG")
    (tmp_path / "a.png").write_bytes(file.getvalue())
    decoding = Decoding(8, 1, black=0.0, white=4095.0, depths=("16-bit",))
    assert (shown(tmp_path / "a.dcm", decoding) == shown(tmp_path / "a.png", decoding)).all()

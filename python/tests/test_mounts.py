"""A granted place that changed between the host's check and the keeper's: the grant is at fault, and no
missing layer of the sandbox."""

import os
import tempfile
import unittest

from hob_pod import lockdown, mounts
from hob_pod.refused import Refused


class TestOpenGranted(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.at = os.path.realpath(folder.name)
        os.mkdir(self.at + "/real")
        os.symlink("real", self.at + "/link")
        with open(self.at + "/file", "w"):
            pass

    def test_what_is_there_is_opened(self):
        for name in ("real", "file"):
            os.close(mounts.open_granted(f"{self.at}/{name}"))

    def test_what_is_not_is_a_matter_of_the_grant_also_with_fewer_layers(self):
        for name in ("link", "gone", "file/inner"):
            with self.subTest(name), self.assertRaises(Refused) as refused:
                mounts.open_granted(f"{self.at}/{name}")
            self.assertEqual(refused.exception.layer, "grants")
            self.assertIn(f"{self.at}/{name}", refused.exception.why)
            missing = []
            plan = {"without": [], "reduced": True}
            with self.subTest(name), self.assertRaises(Refused):
                lockdown.layer(plan, missing, "landlock", lambda name=name: mounts.open_granted(f"{self.at}/{name}"))
            self.assertEqual(missing, [])

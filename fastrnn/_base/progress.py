"""Progress of long work: tqdm's bar where it is installed, else a few plain lines."""


class Progress:
    """Epochs done: tqdm's bar where it is installed, else about ten plain lines; nothing unless wanted."""

    def __init__(self, epochs, done=0, wanted=True):
        self.epochs, self.done, self.wanted, self.bar = epochs, done, wanted, None

    def __enter__(self):
        if self.wanted:
            try:
                from tqdm import tqdm
                self.bar = tqdm(total=self.epochs, initial=self.done, desc="training", unit="epoch", mininterval=0.2)
            except ImportError:
                pass
        return self

    def __call__(self, note):
        """One epoch more, with a few words on it."""
        self.done += 1
        if self.bar is not None:
            self.bar.set_postfix_str(note, refresh=False)
            self.bar.update()
        elif self.wanted and (self.done % max(1, self.epochs // 10) == 0 or self.done == self.epochs):
            print(f"epoch {self.done} of {self.epochs}: {note}", flush=True)

    def __exit__(self, *exception):
        if self.bar is not None:
            self.bar.close()


def progress(items, unit):
    """The items, one by one: tqdm's bar where it is installed, else ten plain lines where it takes long."""
    try:
        from tqdm import tqdm
    except ImportError:
        tenth = max(20_000, -(-len(items) // 10))
        for done, item in enumerate(items):
            if done and done % tenth == 0:
                print(f"{done} of {len(items)} {unit}", flush=True)
            yield item
    else:
        yield from tqdm(items, desc="watching", unit=f" {unit}", mininterval=0.2)

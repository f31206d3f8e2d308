"""Ask a trained model whether two pictures show one person.

    python scripts/examples/verify_two_pictures.py CHECKPOINT A.jpg B.jpg [PRIOR]

CHECKPOINT is a file, the folder of a run's checkpoints, or the run's name. PRIOR is how probable
one person is before anybody looks, 0.5 if it is not given. A decision and a probability need a
threshold: siamese-eval threshold --checkpoint CHECKPOINT chooses one.
"""

import sys

import siamese


def main() -> None:
    checkpoint, first, second = sys.argv[1:4]
    prior = float(sys.argv[4]) if len(sys.argv) > 4 else 0.5
    model = siamese.Embedder.load(checkpoint)
    answer = model.verify(first, second, prior=prior)
    print(f"score {answer.score:.4f}")
    if answer.same is None:
        print(f"no threshold yet: siamese-eval threshold --checkpoint {checkpoint}")
        return
    print(f"{'one person' if answer.same else 'two people'}: threshold {answer.threshold:.4f}, "
          f"chosen for a false-match rate of {answer.target_fmr:g}")  # fmt: skip
    print(f"probability of one person {answer.probability:.3f}, with a prior of {prior:g}")


if __name__ == "__main__":
    main()

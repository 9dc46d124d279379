"""Weights that timm publishes on the Hugging Face hub: a line a tag, the best first.

Normalisation, sizes, crop, interpolation and licence are those of timm 1.0.31's own configurations; the licences agree
with the hub's model cards where those were looked at. `top1` is from `results/results-imagenet.csv` of
https://github.com/huggingface/pytorch-image-models at commit 0173a13, with the size that it was measured at
(`resnet34.tv_in1k`, which is missing there, from commit 7479d45). `crop` belongs to pictures of the training size.
Where `test_size` is larger, timm measured with more of the picture: all of it for crop 0.9 and 0.95; for crop 0.875,
0.95 of it, and 0.965 for torchvision's second recipe.

Left out: weights for research only, CC-BY-NC (Facebook's fb_ssl, fb_swsl and fb_wsl); weights without the 1000 classes
of ImageNet (resnet50.bamboo); resnet34.ra4_e3600_r224_in1k, which those results do not hold yet. timm has neither
AlexNet nor GoogLeNet; torchvision publishes its own as pickles.

All files have 1000 classes: the background class of TensorFlow's checkpoints was taken out before they were published;
their pictures are normalised to -1..1. The file of torchvision's Inception V3 is as long as the other three (95.5 MB),
so it comes without the auxiliary classifier.
"""

from functools import partial

from zoo.models.entries import HubFile, WeightTag

_MEAN, _STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)  # ImageNet's, in 0..255
_GREY = (127.5, 127.5, 127.5)  # as mean and as standard deviation: 0..255 to -1..1

# Commits of the hub that hold the file. The others are taken at "main", where the first fetch decides.
_COMMITS = {
    "vgg11.tv_in1k": "38b46049b490ec2bdb6d4d32b8354c74977f3347",
    "vgg13.tv_in1k": "398c5a92d29787ceca04d7b45c8a07efd8f934f7",
    "vgg16.tv_in1k": "3394518cba29aee1ea82a49d971be90d2dd1dab7",
    "vgg19.tv_in1k": "128d4708565b3a414bcbb9bbad440b2fe37b9f18",
    "vgg11_bn.tv_in1k": "1eb350bbb712e01a71a259d3296ac996539a9f0e",
    "vgg13_bn.tv_in1k": "ed6e64d6167edbe08697cb4d7ceaef5077972131",
    "vgg16_bn.tv_in1k": "e00c01e7cee168262dcba6428dc4a8f41e27e965",
    "vgg19_bn.tv_in1k": "857683a806d7bac35f54d8fc1ed0331536e7e68f",
    "inception_v3.gluon_in1k": "8e0669b67a46e31836862f7c11e6ffd35046c186",
    "inception_v3.tf_adv_in1k": "909cbadce5c7ab2fa85d7a37d352c350dc2a14b3",
    "inception_v4.tf_in1k": "24edbb8f3ca9aab790ab91929a4101165581b168",
    "inception_resnet_v2.tf_in1k": "89854797f99e77e1189626b74d7c07013a4308fa",
    "resnet18.a1_in1k": "ebd61f9c7420e5b5b53262b8ce6bbe311e1e872a",
    "resnet18.gluon_in1k": "d1f0449ae79ac3ed64418fe613b3d8cf28a4252e",
    "resnet18.tv_in1k": "a987fd6b60f845221bfff84b6f0191273ba56ead",
    "resnet18.a3_in1k": "3edbf22272fbbca56c25be1d4f1f3055bed72ee0",
    "resnet34.a1_in1k": "601ed8a5ae6a24ba8ed1048847d860900c32273b",
    "resnet34.a2_in1k": "a8b4cff2fab1bfa081e4f4c0daaef672c955cc93",
    "resnet34.tv_in1k": "c983eba7f5e69bc3548a626d1b0b0b914e5de3a6",
    "resnet34.a3_in1k": "eea3590db7864bed50283acafe283428973086c1",
    "resnet50.a1_in1k": "93271f4677dbf7b4d7f7e7d9d7811bd66c327e56",
    "resnet50.d_in1k": "1b19255347a7d36c93793d53454047e236116f82",
    "resnet50.tv2_in1k": "f2a8587ea6b4a3a1d84450bcc2561b07952daae2",
    "resnet50.a2_in1k": "b3d77cdebc826f3684801ec11fe16ee543f00147",
    "resnet50.b1k_in1k": "64315a4cf47dd094bc98e521779a3f99e2f7c4f1",
    "resnet50.ra_in1k": "bd3df32877dc17521c1121ab9498cdc4eebdd720",
    "resnet50.a3_in1k": "5b799d9e60fc6f2463ef79b94c35486c7e6de192",
    "resnet50.tv_in1k": "aa6c2d36d56bc0209040c02b5a7b7d7bf11d57b8",
    "resnet101.a1h_in1k": "21721ac354aff8c4fbc371f3c4e46fa8832d4d68",
    "resnet101.a1_in1k": "e95c1e3e7cdcc0637817ecc79658817e6dc441bc",
    "resnet101.a2_in1k": "58df8099b34f50a22fcebcd78c77eba06f1c9db8",
    "resnet152.a1_in1k": "449ee9bfaea31586d09a7e686b5932e9d1272ec6",
    "resnet152.tv2_in1k": "6c03aba8c980980031f286eec039dc10543e01a4",
    "resnet152.tv_in1k": "1f8fa579af406a6f10e457a6dce6909c9157a70f",
    "resnext50_32x4d.a1h_in1k": "8af8dd95e2a7538fad74714fc76507d9de9de33c",
    "resnext50_32x4d.a1_in1k": "cf70ff7e66fdd0850944d954e53bf14131d70be1",
    "resnext50_32x4d.a2_in1k": "1e2fad8de183cfcac6c58dab7f6b519e8d1ffd38",
    "resnext50_32x4d.a3_in1k": "97dff44c340d0f00933a0659edc8ccb444cef692",
    "resnext50_32x4d.tv_in1k": "ac4eef0c61cc63cb64d8c416bf9b518f757bed1f",
    "resnext101_32x8d.tv2_in1k": "027b0f16bf147c3e56df46309d78421a430cfa05",
    "wide_resnet50_2.tv2_in1k": "349ee6965ad47f083e89f2fb3287f360aaee1dbb",
    "wide_resnet101_2.tv2_in1k": "a6575ad1ffc6e79d0ae5f480bb78492e8e63b866",
    "resnetv2_50.a1h_in1k": "dcfd4fecb72889c1ce9fd9f7e5b75f8043889864",
}

# Checksums of the files, as the hub shows them; resnet34.a1_in1k as other registries of weights pin it.
_SHA256 = {
    "vgg11.tv_in1k": "682c023808812148d4e60c76d80ad83dbeaf5d50eb1a952a0b836895003151e5",
    "vgg16.tv_in1k": "57b026918159a6bf9faf8405c3a551903768e7138989d9c6224a14227203fad8",
    "vgg19.tv_in1k": "11aea017b543ff59233749d8f1cf544cda749378f5790d2fedab841fb86b7669",
    "vgg13_bn.tv_in1k": "7dae235e35772693cd527e7ac9ef8f6594707a14a8d26aabdb83c0baa6847861",
    "vgg16_bn.tv_in1k": "88bbedbc8e780413736db38ac4efd41b06fc0e93fd5b8879b584bba63a950129",
    "vgg19_bn.tv_in1k": "f8249087e63bae61c6166bb23d7c26efe1b2a43fd9fb5cd60ac6ce00535ba312",
    "inception_v3.tv_in1k": "9c452c63a67fd03a38a78c401ba12d4be0e926df63c93403de3a29f6df20fefb",
    "inception_v4.tf_in1k": "a756a086851c8d5a8de135ec15c76b90ea56cb5aef450e3299107e659e725bb1",
    "inception_resnet_v2.tf_in1k": "dbea26b13a5fc8351919fed6a94222c0577ce324b2765fd081a798f837ca9d72",
    "resnet18.a1_in1k": "80c49dee3da4822c009c5a7fe591e9223c5a2cfcf95a4067ca4dfb5a7b89c612",
    "resnet18.gluon_in1k": "6991fcc0c58379a8496f6273b2f211e492f6af6494041fded649a482772ad2bf",
    "resnet18.tv_in1k": "694f673df6520a3158624e8a89af086f59923ee4cd7436fe5bc3bc71d295ad81",
    "resnet18.a3_in1k": "f049dd3c2e08176be8844dd123467fa5714cff1f141dcfe0ab4975e567f9de21",
    "resnet34.a1_in1k": "829a220f9529d2b1ffdc8719d3273463001e0daf411eaf1916865d9db62c0ed2",
    "resnet50.a1_in1k": "773525d5821de224f8f30c33377b7a795d7863e08522698200d3217d3f2a41bb",
    "resnet50.d_in1k": "d8ed291891c8ee5777f68136665a4eee2f9ddeb2a9bc88acf4b1676b3bbebf55",
    "resnet50.a2_in1k": "f531f9aca4dde1b89e9a465c5b9e3b916a2d1b20a216acf3b9473d1e1212ecf6",
    "resnet50.b1k_in1k": "cd64707e0ef72aa0526ac6d46fba6495ad2088717adb47a62a0b526eb3cd3480",
    "resnet50.b2k_in1k": "0c89502f61808f6fac8c7044eb59c072877c171529fc001bc85403982115232c",
    "resnet50.ra_in1k": "c49195c94e4fe19545a332e706f998d836f63b5d9892cc54526df3ee9b92ba18",
    "resnet50.tv_in1k": "5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888",
    "resnet101.a1h_in1k": "1a076c0384295e7d3704f201c5711ff245507db934230bab72ff3014a95f90fe",
    "resnet101.a1_in1k": "1ba5b660e7c175b3c27c557fc7dc8b2815be830c516815b0155f61b403f27380",
    "resnet101.a2_in1k": "d44a7f2e7eaea0bee834ea5e7fd691d239057014628df0bd194c312773b92c83",
    "resnet101.a3_in1k": "846baf57eaff38823a70bf63fe58052d2d6b93bd25d3b89c4d31f6909babba0b",
    "resnet152.a1_in1k": "5a3518da3d35ee04e77a5e69289cff55c3a07a732d7287f6cab20bd4d330eda9",
    "resnet152.tv_in1k": "15897077afdf4d6334dc0c3f8e6fb483afb3faa9298c139f3c6eb29bca6ae5b2",
    "resnext50_32x4d.a1h_in1k": "b952952a7b3e856b16ebf82fb44d2aa8c502e73ec678976c9e3b970fcd530bd5",
    "resnext50_32x4d.a2_in1k": "4b4522bcca81d90e486f8cfb92213597b899d68764ce5fc08db37e3352e02a7d",
    "resnext50_32x4d.a3_in1k": "55480d1612cf33904614f2a3891a0853022cb78c95a3ad734e185ae6575ee545",
    "resnext50_32x4d.tv_in1k": "c0d85cba49c0e9dedbcf6d4e572e2c5ea5eb68e9d64d0564811fd54d4f72939a",
    "resnext101_32x8d.tv_in1k": "71c7427e233904ad828b768b9683876dc71f143876cbadaa26428bfea3560fc3",
    "wide_resnet50_2.tv_in1k": "df6fb6c4824769769de18e14088475fd6ee94236849aa4e5d8022ba9d9a9a16c",
    "wide_resnet101_2.tv2_in1k": "0438046a3b7bb8166e6564dec811985d595f3098c9970181305945e0efa964c3",
}


def _tag(
    name,
    top1,
    *,
    image_size=224,
    crop=0.875,
    interpolation="bicubic",
    test_size=224,
    licence="Apache-2.0",
    mean=_MEAN,
    std=_STD,
):
    return WeightTag(
        name=f"timm/{name}",
        file=HubFile(f"timm/{name}", _COMMITS.get(name, "main"), _SHA256.get(name)),
        mean=mean,
        std=std,
        image_size=image_size,
        crop=crop,
        interpolation=interpolation,
        test_size=test_size,
        top1=top1,
        licence=licence,
    )


_torchvision = partial(_tag, interpolation="bilinear", licence="BSD-3-Clause")
_torchvision_2 = partial(_torchvision, image_size=176)  # torchvision's second recipe, of 2021
_slim = partial(_tag, image_size=299, test_size=299, mean=_GREY, std=_GREY)  # TensorFlow's TF-Slim, and what follows it
_timm_2020 = partial(_tag, test_size=288)
_timm = partial(_tag, crop=0.95, test_size=288)  # "ResNet strikes back", https://arxiv.org/abs/2110.00476, and after
_timm_160 = partial(_tag, image_size=160, crop=0.95)  # its recipe A3

TAGS: dict[str, tuple[WeightTag, ...]] = {
    "vgg11": (_torchvision("vgg11.tv_in1k", 69.022),),
    "vgg13": (_torchvision("vgg13.tv_in1k", 69.932),),
    "vgg16": (_torchvision("vgg16.tv_in1k", 71.592),),
    "vgg19": (_torchvision("vgg19.tv_in1k", 72.378),),
    "vgg11_bn": (_torchvision("vgg11_bn.tv_in1k", 70.382),),
    "vgg13_bn": (_torchvision("vgg13_bn.tv_in1k", 71.588),),
    "vgg16_bn": (_torchvision("vgg16_bn.tv_in1k", 73.37),),
    "vgg19_bn": (_torchvision("vgg19_bn.tv_in1k", 74.216),),
    "inception_v3": (
        _slim("inception_v3.gluon_in1k", 78.806, mean=_MEAN, std=_STD),
        _slim("inception_v3.tf_in1k", 77.862),
        _slim("inception_v3.tf_adv_in1k", 77.592),
        _slim("inception_v3.tv_in1k", 77.434),
    ),
    "inception_v4": (_slim("inception_v4.tf_in1k", 80.156),),
    "inception_resnet_v2": (
        _slim("inception_resnet_v2.tf_in1k", 80.462, crop=0.8975),
        _slim("inception_resnet_v2.tf_ens_adv_in1k", 79.978, crop=0.8975),
    ),
    "resnet18": (
        _timm("resnet18.a1_in1k", 73.158),
        _timm("resnet18.a2_in1k", 72.372),
        _tag("resnet18.gluon_in1k", 70.838),
        _torchvision("resnet18.tv_in1k", 69.76),
        _timm_160("resnet18.a3_in1k", 68.254),
    ),
    "resnet34": (
        _timm("resnet34.a1_in1k", 77.918),
        _timm("resnet34.a2_in1k", 77.158),
        _timm_2020("resnet34.bt_in1k", 76.48),
        _tag("resnet34.gluon_in1k", 74.578),
        _torchvision("resnet34.tv_in1k", 73.298),
        _timm_160("resnet34.a3_in1k", 72.97),
    ),
    "resnet50": (
        _timm("resnet50.a1_in1k", 81.214),
        _timm("resnet50.d_in1k", 80.972),
        _timm("resnet50.c1_in1k", 80.912),
        _timm("resnet50.c2_in1k", 80.87),
        _torchvision_2("resnet50.tv2_in1k", 80.85),
        _timm("resnet50.a2_in1k", 80.772),
        _timm("resnet50.b1k_in1k", 80.706),
        _tag("resnet50.a1h_in1k", 80.676, image_size=176, crop=0.9),
        _timm("resnet50.b2k_in1k", 80.454),
        _timm_2020("resnet50.ram_in1k", 79.976),
        _timm_2020("resnet50.ra_in1k", 79.836),
        _timm_2020("resnet50.bt_in1k", 79.64),
        _tag("resnet50.am_in1k", 78.998),
        _timm_160("resnet50.a3_in1k", 78.048),
        _tag("resnet50.gluon_in1k", 77.58),
        _torchvision("resnet50.tv_in1k", 76.13),
    ),
    "resnet101": (
        _timm("resnet101.a1h_in1k", 82.778),
        _timm("resnet101.a1_in1k", 82.322),
        _timm("resnet101.a2_in1k", 82.236),
        _torchvision_2("resnet101.tv2_in1k", 81.89),
        _timm_160("resnet101.a3_in1k", 79.814),
        _tag("resnet101.gluon_in1k", 79.31),
        _torchvision("resnet101.tv_in1k", 77.376),
    ),
    "resnet152": (
        _timm("resnet152.a1h_in1k", 83.45),
        _timm("resnet152.a1_in1k", 82.732),
        _timm("resnet152.a2_in1k", 82.608),
        _torchvision_2("resnet152.tv2_in1k", 82.288),
        _timm_160("resnet152.a3_in1k", 80.546),
        _tag("resnet152.gluon_in1k", 79.694),
        _torchvision("resnet152.tv_in1k", 78.322),
    ),
    "resnext50_32x4d": (
        _timm("resnext50_32x4d.a1h_in1k", 82.014),
        _timm("resnext50_32x4d.a1_in1k", 81.466),
        _timm("resnext50_32x4d.a2_in1k", 81.304),
        _torchvision_2("resnext50_32x4d.tv2_in1k", 81.182),
        _timm_2020("resnext50_32x4d.ra_in1k", 80.698),
        _tag("resnext50_32x4d.gluon_in1k", 79.36),
        _timm_160("resnext50_32x4d.a3_in1k", 79.268),
        _torchvision("resnext50_32x4d.tv_in1k", 77.618),
    ),
    "resnext101_32x8d": (
        _torchvision_2("resnext101_32x8d.tv2_in1k", 82.832),
        _torchvision("resnext101_32x8d.tv_in1k", 79.31),
    ),
    "wide_resnet50_2": (
        _timm_2020("wide_resnet50_2.racm_in1k", 82.28),
        _torchvision_2("wide_resnet50_2.tv2_in1k", 81.606),
        _torchvision("wide_resnet50_2.tv_in1k", 78.48),
    ),
    "wide_resnet101_2": (
        _torchvision_2("wide_resnet101_2.tv2_in1k", 82.498),
        _torchvision("wide_resnet101_2.tv_in1k", 78.838),
    ),
    "resnetv2_50": (_timm("resnetv2_50.a1h_in1k", 81.398, mean=_GREY, std=_GREY),),
}

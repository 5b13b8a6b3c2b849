//! What rules look at: protocols, and the fields of each.

use serde::{Deserialize, Serialize};

use super::{NwfilterError, error};

/// What a field may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldKind {
    /// An Ethernet address.
    Mac,
    /// An address of IPv4.
    Ipv4,
    /// Bits of one that count.
    Ipv4Mask,
    /// An address of IPv6.
    Ipv6,
    /// Bits of one that count.
    Ipv6Mask,
    /// 8 bits.
    Octet,
    /// 16 bits.
    Short,
    /// 32 bits.
    Long,
    /// 6 bits.
    SixBits,
    /// A tag of a VLAN.
    Tag,
    /// What a frame has in it.
    Ethertype,
    /// What an ARP packet is for.
    Opcode,
    /// A protocol of IP.
    Protocol,
    /// Yes or no.
    Boolean,
    /// States of a connection.
    State,
    /// Flags of TCP.
    TcpFlags,
    /// Something of a set of the host.
    Set,
    /// A comment.
    Comment,
}

impl FieldKind {
    pub(super) const fn described(self) -> &'static str {
        match self {
            Self::Mac => "an Ethernet address",
            Self::Ipv4 => "an address of IPv4",
            Self::Ipv4Mask => "a mask of IPv4, or 0 to 32",
            Self::Ipv6 => "an address of IPv6",
            Self::Ipv6Mask => "a mask of IPv6, or 0 to 128",
            Self::Octet => "0 to 255",
            Self::Short => "0 to 65535",
            Self::Long => "0 to 4294967295",
            Self::SixBits => "0 to 63",
            Self::Tag => "0 to 4095",
            Self::Ethertype => "arp, rarp, ipv4, ipv6, vlan, or 0x600 to 0xffff",
            Self::Opcode => "Request, Reply, another of libvirt's words, or 0 to 65535",
            Self::Protocol => "tcp, udp, icmp, another of libvirt's words, or 0 to 255",
            Self::Boolean => "true or false",
            Self::State => "NEW, ESTABLISHED, RELATED and INVALID, or NONE",
            Self::TcpFlags => "as of iptables, MASK/FLAGS",
            Self::Set => "letters, digits and what libvirt allows of others",
            Self::Comment => "at most 256 bytes of one line that XML can say",
        }
    }
}

macro_rules! fields {
    ($( $variant:ident $name:literal $kind:ident; )*) => {
        /// What a rule may say of a frame; each is named as the attribute of libvirt's element.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum RuleField { $( #[doc = concat!("`", $name, "`.")] $variant, )* }

        impl RuleField {
            /// Every field.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            const fn plain(self) -> (&'static str, FieldKind) {
                match self { $( Self::$variant => ($name, FieldKind::$kind), )* }
            }
        }
    };
}

fields! {
    SourceMac "srcmacaddr" Mac;
    SourceMacMask "srcmacmask" Mac;
    DestinationMac "dstmacaddr" Mac;
    DestinationMacMask "dstmacmask" Mac;
    ProtocolId "protocolid" Ethertype;
    VlanId "vlanid" Tag;
    Encapsulated "encap-protocol" Ethertype;
    HardwareType "hwtype" Short;
    ProtocolType "protocoltype" Short;
    Opcode "opcode" Opcode;
    ArpSourceMac "arpsrcmacaddr" Mac;
    ArpSourceIp "arpsrcipaddr" Ipv4;
    ArpDestinationMac "arpdstmacaddr" Mac;
    ArpDestinationIp "arpdstipaddr" Ipv4;
    Gratuitous "gratuitous" Boolean;
    SourceIp "srcipaddr" Ipv4;
    SourceIpMask "srcipmask" Ipv4Mask;
    DestinationIp "dstipaddr" Ipv4;
    DestinationIpMask "dstipmask" Ipv4Mask;
    SourceIpv6 "srcipaddr" Ipv6;
    SourceIpv6Mask "srcipmask" Ipv6Mask;
    DestinationIpv6 "dstipaddr" Ipv6;
    DestinationIpv6Mask "dstipmask" Ipv6Mask;
    Protocol "protocol" Protocol;
    SourcePort "srcportstart" Short;
    SourcePortEnd "srcportend" Short;
    DestinationPort "dstportstart" Short;
    DestinationPortEnd "dstportend" Short;
    Dscp "dscp" SixBits;
    Type "type" Octet;
    TypeEnd "typeend" Octet;
    Code "code" Octet;
    CodeEnd "codeend" Octet;
    StpFlags "flags" Octet;
    RootPriority "root-priority" Short;
    RootPriorityEnd "root-priority-hi" Short;
    RootAddress "root-address" Mac;
    RootAddressMask "root-address-mask" Mac;
    RootCost "root-cost" Long;
    RootCostEnd "root-cost-hi" Long;
    SenderPriority "sender-priority" Short;
    SenderPriorityEnd "sender-priority-hi" Short;
    SenderAddress "sender-address" Mac;
    SenderAddressMask "sender-address-mask" Mac;
    Port "port" Short;
    PortEnd "port-hi" Short;
    Age "age" Short;
    AgeEnd "age-hi" Short;
    MaxAge "max-age" Short;
    MaxAgeEnd "max-age-hi" Short;
    HelloTime "hello-time" Short;
    HelloTimeEnd "hello-time-hi" Short;
    ForwardDelay "forward-delay" Short;
    ForwardDelayEnd "forward-delay-hi" Short;
    SourceIpFrom "srcipfrom" Ipv4;
    SourceIpTo "srcipto" Ipv4;
    DestinationIpFrom "dstipfrom" Ipv4;
    DestinationIpTo "dstipto" Ipv4;
    SourceIpv6From "srcipfrom" Ipv6;
    SourceIpv6To "srcipto" Ipv6;
    DestinationIpv6From "dstipfrom" Ipv6;
    DestinationIpv6To "dstipto" Ipv6;
    ConnectionsAbove "connlimit-above" Short;
    State "state" State;
    TcpFlags "flags" TcpFlags;
    TcpOption "option" Octet;
    IpSet "ipset" Set;
    IpSetFlags "ipsetflags" Set;
    Comment "comment" Comment;
}

impl RuleField {
    /// The name of libvirt's attribute.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.plain().0
    }

    /// What it may be.
    #[must_use]
    pub const fn kind(self) -> FieldKind {
        self.plain().1
    }
}

use RuleField as F;

macro_rules! protocols {
    ($( $(#[$doc:meta])* $variant:ident $name:literal $fields:expr; )*) => {
        /// What frames a rule is about; each is named as libvirt's element.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum RuleProtocol { $( $(#[$doc])* $variant, )* }

        impl RuleProtocol {
            /// Every protocol.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// The name of libvirt's element.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// Its fields, in the order in which libvirt writes them.
            #[must_use]
            pub const fn fields(self) -> &'static [RuleField] {
                match self { $( Self::$variant => $fields, )* }
            }
        }
    };
}

/// Of what is judged frame by frame: whom it is from and to, and its own.
macro_rules! of_frames {
    ($($own:ident)*) => {
        &[
            F::SourceMac, F::SourceMacMask, F::DestinationMac, F::DestinationMacMask,
            $(F::$own,)*
            F::Comment,
        ]
    };
}

/// Of what libvirt follows connections of: whom it is from and to by addresses of one version, and its own.
macro_rules! of_connections {
    ([$($address:ident)*] $($own:ident)*) => {
        &[
            F::SourceMac, $(F::$address,)*
            F::Dscp, F::ConnectionsAbove, F::Comment, F::State,
            $(F::$own,)*
            F::IpSet, F::IpSetFlags,
        ]
    };
}

macro_rules! upon_ipv4 {
    ($($own:ident)*) => {
        of_connections!([
            SourceIp SourceIpMask DestinationIp DestinationIpMask
            SourceIpFrom SourceIpTo DestinationIpFrom DestinationIpTo
        ] $($own)*)
    };
}

macro_rules! upon_ipv6 {
    ($($own:ident)*) => {
        of_connections!([
            SourceIpv6 SourceIpv6Mask DestinationIpv6 DestinationIpv6Mask
            SourceIpv6From SourceIpv6To DestinationIpv6From DestinationIpv6To
        ] $($own)*)
    };
}

const ARP: &[F] = of_frames!(
    HardwareType ProtocolType Opcode ArpSourceMac ArpDestinationMac ArpSourceIp ArpDestinationIp Gratuitous
);
const STP: &[F] = &[
    F::SourceMac,
    F::SourceMacMask,
    F::Type,
    F::StpFlags,
    F::RootPriority,
    F::RootPriorityEnd,
    F::RootAddress,
    F::RootAddressMask,
    F::RootCost,
    F::RootCostEnd,
    F::SenderPriority,
    F::SenderPriorityEnd,
    F::SenderAddress,
    F::SenderAddressMask,
    F::Port,
    F::PortEnd,
    F::Age,
    F::AgeEnd,
    F::MaxAge,
    F::MaxAgeEnd,
    F::HelloTime,
    F::HelloTimeEnd,
    F::ForwardDelay,
    F::ForwardDelayEnd,
    F::Comment,
];
const IP: &[F] = of_frames!(
    SourceIp SourceIpMask DestinationIp DestinationIpMask Protocol
    SourcePort SourcePortEnd DestinationPort DestinationPortEnd Dscp
);
const IPV6: &[F] = of_frames!(
    SourceIpv6 SourceIpv6Mask DestinationIpv6 DestinationIpv6Mask Protocol
    SourcePort SourcePortEnd DestinationPort DestinationPortEnd Type TypeEnd Code CodeEnd
);
const PORTLESS: &[F] = upon_ipv4!();
const PORTLESS_IPV6: &[F] = upon_ipv6!();
const ICMP: &[F] = upon_ipv4!(Type Code);
const ICMPV6: &[F] = upon_ipv6!(Type Code);
const PORTS: &[F] = upon_ipv4!(SourcePort SourcePortEnd DestinationPort DestinationPortEnd);
const PORTS_IPV6: &[F] = upon_ipv6!(SourcePort SourcePortEnd DestinationPort DestinationPortEnd);
const TCP: &[F] = upon_ipv4!(
    SourcePort SourcePortEnd DestinationPort DestinationPortEnd TcpOption TcpFlags
);
const TCP_IPV6: &[F] = upon_ipv6!(
    SourcePort SourcePortEnd DestinationPort DestinationPortEnd TcpOption TcpFlags
);

protocols! {
    /// Ethernet, whatever is in it.
    Mac "mac" of_frames!(ProtocolId);
    /// Tagged frames (IEEE 802.1Q).
    Vlan "vlan" of_frames!(VlanId Encapsulated);
    /// Frames of spanning trees (IEEE 802.1D).
    Stp "stp" STP;
    /// ARP (RFC 826).
    Arp "arp" ARP;
    /// Reverse ARP (RFC 903).
    Rarp "rarp" ARP;
    /// IPv4, frame by frame.
    Ip "ip" IP;
    /// IPv6, frame by frame.
    Ipv6 "ipv6" IPV6;
    /// TCP upon IPv4.
    Tcp "tcp" TCP;
    /// UDP upon IPv4.
    Udp "udp" PORTS;
    /// UDP-Lite upon IPv4.
    UdpLite "udplite" PORTLESS;
    /// ESP upon IPv4.
    Esp "esp" PORTLESS;
    /// AH upon IPv4.
    Ah "ah" PORTLESS;
    /// SCTP upon IPv4.
    Sctp "sctp" PORTS;
    /// ICMP.
    Icmp "icmp" ICMP;
    /// IGMP.
    Igmp "igmp" PORTLESS;
    /// Anything upon IPv4.
    All "all" PORTLESS;
    /// TCP upon IPv6.
    TcpIpv6 "tcp-ipv6" TCP_IPV6;
    /// UDP upon IPv6.
    UdpIpv6 "udp-ipv6" PORTS_IPV6;
    /// UDP-Lite upon IPv6.
    UdpLiteIpv6 "udplite-ipv6" PORTLESS_IPV6;
    /// ESP upon IPv6.
    EspIpv6 "esp-ipv6" PORTLESS_IPV6;
    /// AH upon IPv6.
    AhIpv6 "ah-ipv6" PORTLESS_IPV6;
    /// SCTP upon IPv6.
    SctpIpv6 "sctp-ipv6" PORTS_IPV6;
    /// ICMP of IPv6.
    Icmpv6 "icmpv6" ICMPV6;
    /// Anything upon IPv6.
    AllIpv6 "all-ipv6" PORTLESS_IPV6;
}

impl RuleProtocol {
    /// Whether libvirt judges it frame by frame; of the others it follows connections.
    #[must_use]
    pub const fn is_of_frames(self) -> bool {
        matches!(
            self,
            Self::Mac | Self::Vlan | Self::Stp | Self::Arp | Self::Rarp | Self::Ip | Self::Ipv6
        )
    }

    /// Its field of that name.
    #[must_use]
    pub fn field(self, name: &str) -> Option<RuleField> {
        let mut fields = self.fields().iter();
        fields.find(|field| field.name() == name).copied()
    }
}

impl std::str::FromStr for RuleProtocol {
    type Err = NwfilterError;

    fn from_str(word: &str) -> Result<Self, NwfilterError> {
        let mut all = Self::ALL.iter();
        let found = all.find(|protocol| protocol.name() == word);
        found.copied().ok_or_else(|| NwfilterError::Word {
            word: error::short(word),
            known: Self::ALL
                .iter()
                .map(|it| it.name())
                .collect::<Vec<_>>()
                .join(", "),
        })
    }
}
